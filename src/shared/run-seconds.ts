/** The longest time limit of a run: six hours. */
export const MAX_RUN_SECONDS = 21_600;

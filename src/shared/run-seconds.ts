/** The longest that a run of any kind may take, seconds. */
export const MAX_RUN_SECONDS = 21_600;

/** The longest that any run may take, in seconds. */
export const MAX_RUN_SECONDS = 21_600;

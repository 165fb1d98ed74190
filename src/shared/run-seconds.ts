export const MAX_RUN_SECONDS = 21_600;

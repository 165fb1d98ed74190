/** The settings of a sandbox's set-up, as the sandbox and the account's checkpoints store them. */
export interface SetUpSettings {
  script: string;
  /** The key of the set-up outcome that the sandbox's files contain. */
  outcomeKey?: string | undefined;
}

/** Stored settings in the present form: earlier versions stored `outcomeKey` as `had`. */
export function withOutcomeKey<T extends SetUpSettings>(stored: T & { had?: string | undefined }): T {
  const { had } = stored;
  return had === undefined ? stored : { ...stored, outcomeKey: had, had: undefined };
}

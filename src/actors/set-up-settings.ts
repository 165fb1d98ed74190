/** The settings of a sandbox's set-up, as the sandbox and the account's checkpoints store them. */
export interface SetUpSettings {
  script: string;
  /** The key of the set-up outcome that the sandbox's files contain. */
  outcomeKey?: string | undefined;
}

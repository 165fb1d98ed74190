/** The body of a request to the bare Worker: one call of the sandbox's actor. */
export type BareCall = { sandbox: string } & (
  | { method: "ping" }
  | { method: "createCodeContext" }
  | { method: "runCode"; context: string; code: string }
  /** Starts a server in the sandbox, and waits until it listens. */
  | { method: "serve"; program: string }
  /** This and the next two are each one HTTP request to that server. */
  | { method: "command"; command: string }
  | { method: "readFile"; path: string }
  | { method: "writeFile"; path: string; content: string }
  | { method: "destroy" }
);

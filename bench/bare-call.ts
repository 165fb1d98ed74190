/** The body of a request to the bare Worker. For each request, the Worker makes one call of the sandbox's actor. */
export type BareCall = { sandbox: string } & (
  | { method: "ping" }
  | { method: "createCodeContext" }
  | { method: "runCode"; context: string; code: string }
  /** Starts a server in the sandbox, and waits until it listens. */
  | { method: "serve"; program: string }
  // The bare Worker makes one HTTP request to the server of `serve` for each call of the next three methods.
  | { method: "command"; command: string }
  | { method: "readFile"; path: string }
  | { method: "writeFile"; path: string; content: string }
  | { method: "destroy" }
);

/** The body of a request to the bare Worker: one call of the SDK's class, on the actor of that name. */
export type BareCall = { sandbox: string } & (
  | { method: "exec"; command: string }
  | { method: "createCodeContext" }
  | { method: "runCode"; context: string; code: string }
  | { method: "readFile"; path: string }
  | { method: "writeFile"; path: string; content: string }
  | { method: "destroy" }
);

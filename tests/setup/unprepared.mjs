/**
 * Loaded into a server's programs: the engine prepares no sandbox before a call needs it. A prepared sandbox has a Python kernel,
 * which takes 0.35 s of processor time, and most sandboxes of the tests run no Python.
 */
if (process.argv[1]?.endsWith("/local/engine/main.ts")) {
  const { PreparedSandbox } = await import("../../local/engine/prepared-sandbox.ts");
  PreparedSandbox.prototype.start = () => undefined;
}

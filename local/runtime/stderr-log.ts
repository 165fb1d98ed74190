/** Writes a line to stderr, which the engine shows in verbose mode. Never a command, its output or an environment. */
export function log(message: string): void {
  process.stderr.write(`runtime: ${message}\n`);
}

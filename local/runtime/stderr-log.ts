/** Writes a line to stderr, which the engine shows in verbose mode. The line must not contain a command, its output or variables. */
export function log(message: string): void {
  process.stderr.write(`runtime: ${message}\n`);
}

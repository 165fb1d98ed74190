/** Writes a line to stderr, which the engine shows in verbose mode. Lines must not contain commands, their output, or variables. */
export function log(message: string): void {
  process.stderr.write(`runtime: ${message}\n`);
}

/** A word that bash reads back as exactly this string. */
export function shellQuote(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
}

const VARIABLE_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** The entries of an `env` option that are set, or an Error that names the first impossible name. */
export function variables(env: Record<string, string | null | undefined> | undefined): [string, string][] {
  const entries: [string, string][] = [];
  for (const [name, value] of Object.entries(env ?? {})) {
    if (value === undefined || value === null) continue;
    if (!VARIABLE_NAME.test(name)) throw new Error(`Invalid environment variable name: ${name}`);
    entries.push([name, value]);
  }
  return entries;
}

/**
 * Output of a foreground command as the container reports it: its server copies lines with bash's `read`, which ends
 * every line, loses NUL bytes, and joins the lines without the last newline.
 */
export function commandText(bytes: Buffer): string {
  let text = bytes.toString("utf8");
  if (text.includes("\0")) text = text.replaceAll("\0", "");
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}

export function now(): string {
  return new Date().toISOString();
}

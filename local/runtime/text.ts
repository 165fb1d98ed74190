/** A word that bash reads back as exactly this string. */
export function shellQuote(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
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

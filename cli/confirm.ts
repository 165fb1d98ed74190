import { createInterface } from "node:readline/promises";
import { notConfirmed } from "./texts.ts";

/** @throws {CommandError} unless the user says yes; Ctrl-C and Ctrl-D mean no */
export async function confirm(question: string): Promise<void> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const input = await terminal.question(`${question} [y/N] `).catch(() => {
    process.stderr.write("\n");
    return "";
  });
  terminal.close();
  if (!/^y(es)?$/i.test(input.trim())) throw notConfirmed();
}

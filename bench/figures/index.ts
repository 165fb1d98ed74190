/** Every figure, in the order they are measured and shown. */
import type { Figure } from "../figure.ts";
import { runCode } from "./run-code.ts";
import { runCommand } from "./run-command.ts";

export const figures: readonly Figure[] = [runCode, runCommand];

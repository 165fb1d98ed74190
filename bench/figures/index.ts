/** All figures, in the order of their measurements and tables. */
import type { Figure } from "../figure.ts";
import { client, getResult, runCode, runCommand } from "./calls.ts";
import { concurrency } from "./concurrency.ts";
import { cost } from "./cost.ts";
import { files } from "./read-file.ts";
import { history } from "./history.ts";
import { interactive } from "./interactive.ts";
import { memory } from "./memory.ts";
import { output } from "./output.ts";
import { proxy } from "./proxy.ts";
import { sandboxFigure } from "./sandbox.ts";
import { scale } from "./scale.ts";
import { freshSandbox, server } from "./start.ts";
import { startup } from "./startup.ts";
import { transfer } from "./transfer.ts";
import { workspace } from "./workspace.ts";

export const figures: readonly Figure[] = [
  runCode,
  runCommand,
  client,
  files,
  transfer,
  proxy,
  workspace,
  getResult,
  concurrency,
  scale,
  history,
  output,
  memory,
  freshSandbox,
  interactive,
  sandboxFigure,
  server,
  startup,
  cost,
];

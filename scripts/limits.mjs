/** The table of docs/reference/limits.md, from the code. JavaScript, because it imports modules that are typed for workerd. */
import { MAX_BODY_BYTES } from "../src/server/body.ts";
import { MAX_UPLOAD_BYTES } from "../src/server/file-response.ts";
import { MAX_HOSTS } from "../src/shared/network-policy.ts";
import { MAX_RUN_SECONDS } from "../src/shared/run-seconds.ts";
import { DIFF_BYTES, MAX_FILES } from "../src/runs/task-detail.ts";
import { MAX_IN_FLIGHT, MAX_REQUESTS } from "../src/tasks/budget.ts";

const count = (value) => value.toLocaleString("en-US");

function bytes(value) {
  const power = Math.min(Math.floor(Math.log2(value) / 10), 3);
  return `${count(value / 1024 ** power)} ${["bytes", "KiB", "MiB", "GiB"][power]}`;
}

const ROWS = [
  ["time of one run (`timeout_seconds`)", `${count(MAX_RUN_SECONDS)} s`, "[runs](runs.md)"],
  ["body of one MCP request", bytes(MAX_BODY_BYTES), "[tools](tools.md#write_file)"],
  ["one uploaded file", bytes(MAX_UPLOAD_BYTES), "[files](files.md#links)"],
  ["hosts in `allow_hosts`", count(MAX_HOSTS), "[network](network.md#the-list)"],
  ["requests of one task to its model", count(MAX_REQUESTS), "[tasks](tasks.md#limits)"],
  ["requests of one task to its model at once", count(MAX_IN_FLIGHT), "[tasks](tasks.md#limits)"],
  ["changed files in a task's record", count(MAX_FILES), "[tasks](tasks.md#from-start-to-end)"],
  ["diff in a task's result", bytes(DIFF_BYTES), "[tasks](tasks.md#from-start-to-end)"],
];

export const limitsTable = () =>
  `| limit | value | page |\n| --- | --: | --- |\n${ROWS.map((row) => `| ${row.join(" | ")} |`).join("\n")}\n`;

import { z } from "zod";
import { serverCommand } from "../define-command.ts";
import { Server } from "../server-calls.ts";
import { bytes, json, note, table } from "../print.ts";
import { serverAddress } from "../server-address.ts";

const listSchema = z.looseObject({
  sandboxes: z.array(
    z.looseObject({
      name: z.string(),
      state: z.string(),
      last_used_at: z.string(),
      size_bytes: z.number().optional(),
      saved_at: z.string().optional(),
    }),
  ),
  max_sandboxes: z.number(),
});

export const sandboxes = serverCommand("sandboxes", "list the sandboxes, most recently used first", [
  "sandboxes",
  "sandboxes --json",
]).action(async (options) => {
  const server = await Server.connect(serverAddress(options));
  const { data } = await server.call("list_sandboxes");
  await server.close();
  if (options.json) return json(true, data);
  const { sandboxes: listed, max_sandboxes } = listSchema.parse(data);
  const short = (time: string | undefined) => time?.replace(/\.\d+Z$/, "Z") ?? "";
  table(
    [
      { title: "NAME" },
      { title: "STATE" },
      { title: "SIZE", isRightAligned: true },
      { title: "LAST USED" },
      { title: "SAVED" },
    ],
    listed.map(({ name, state, size_bytes, last_used_at, saved_at }) => [
      name,
      state,
      size_bytes === undefined || state === "stopped" ? "" : bytes(size_bytes),
      short(last_used_at),
      short(saved_at),
    ]),
  );
  note(`${listed.length} of ${max_sandboxes} sandboxes`);
});

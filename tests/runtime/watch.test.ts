import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf, readEvents, startRuntime, type Event, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let root: string;
const session = `watch-${process.pid}`;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
  root = `${runtime.workspace}/${session}`;
  await api.commands.execute(`mkdir -p ${root}/sub ${root}/node_modules; echo 1 > ${root}/sub/old`, session);
});
afterAll(async () => {
  await api.commands.execute(`rm -rf ${root}`, session);
  await runtime.stop();
});

const shell = (command: string): PromiseLike<unknown> =>
  api.commands.execute(command, session, { cwd: root });

/** Reads on until an event that says this of that path. */
async function until(events: AsyncGenerator<Event>, eventType: string, path: string): Promise<Event[]> {
  const seen: Event[] = [];
  for (;;) {
    const { value, done } = await events.next();
    if (done) throw new Error(`the stream ended after ${JSON.stringify(seen)}`);
    seen.push(value);
    if (value.eventType === eventType && value.path === path) return seen;
  }
}

describe("watch", () => {
  it("reports what is created, modified and deleted, also in new directories", async () => {
    const events = readEvents(await api.watch.watch({ path: root }));
    expect((await events.next()).value).toMatchObject({
      type: "watching",
      path: root,
      watchId: expect.any(String),
    });
    await shell("echo 2 > sub/old");
    await until(events, "modify", `${root}/sub/old`);
    await shell("mkdir -p new/deep && echo x > new/deep/file");
    const made = await until(events, "create", `${root}/new/deep/file`);
    expect(made).toContainEqual(
      expect.objectContaining({ eventType: "create", path: `${root}/new`, isDirectory: true }),
    );
    await shell("echo y >> new/deep/file");
    await until(events, "modify", `${root}/new/deep/file`);
    await shell("rm -r new");
    await until(events, "delete", `${root}/new`);
    await events.return(undefined);
  });

  it("leaves out what is excluded, and all but what is included", async () => {
    const [all, some] = await Promise.all([
      api.watch.watch({ path: root }),
      api.watch.watch({ path: root, include: ["*.ts"] }),
    ]).then((streams) => streams.map(readEvents));
    if (!all || !some) throw new Error("no streams");
    await Promise.all([all.next(), some.next()]);
    await shell("echo > node_modules/x; echo > a.js; echo > b.ts");
    const [ofAll, ofSome] = await Promise.all([
      until(all, "create", `${root}/b.ts`),
      until(some, "create", `${root}/b.ts`),
    ]);
    expect(ofAll.map(({ path }) => path)).toContain(`${root}/a.js`);
    expect(ofAll.map(({ path }) => path)).not.toContain(`${root}/node_modules/x`);
    expect(new Set(ofSome.map(({ path }) => path))).toEqual(new Set([`${root}/b.ts`]));
    await Promise.all([all.return(undefined), some.return(undefined)]);
  });

  it("refuses a path that is not there", async () => {
    expect((await failureOf(api.watch.watch({ path: `${root}/none` }))).code).toBe("FILE_NOT_FOUND");
  });
});

describe("checkChanges", () => {
  it("tells by its version whether something changed", async () => {
    const first = await api.watch.checkChanges({ path: `${root}/sub` });
    expect(first.status).toBe("unchanged");
    const since = first.version;
    expect((await api.watch.checkChanges({ path: `${root}/sub`, since })).status).toBe("unchanged");
    await shell("echo more > sub/another");
    await expect
      .poll(async () => (await api.watch.checkChanges({ path: `${root}/sub`, since })).status)
      .toBe("changed");
    expect(await api.watch.checkChanges({ path: `${root}/sub`, since: "watch-0-0:1" })).toMatchObject({
      status: "resync",
    });
    const invalid = await failureOf(api.watch.checkChanges({ path: `${root}/sub`, since: "nonsense" }));
    expect(invalid.code).toBe("VALIDATION_FAILED");
  });
});

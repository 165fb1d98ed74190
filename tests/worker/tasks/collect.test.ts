/** The artifacts of a task whose sandbox stops to respond, or responds after the task's end. */
import { expect, it } from "vitest";
import type { FileOperations } from "../../../src/container/file-operations.ts";
import type { Artifact } from "../../../src/runs/task-detail.ts";
import { sandboxUnresponsive } from "../../../src/shared/errors.ts";
import { collect } from "../../../src/tasks/collect.ts";

const NAMES = ["a", "b", "c"];

/** Collects the files `names`. @param onRead called before each read of a file @param onPut called after each upload */
async function collectFiles(
  onRead: (path: string) => void,
  isOver = () => false,
  onPut = () => {},
  { names = NAMES, diffBytes = 0 } = {},
) {
  const objects = new Map<string, number>();
  const files = names.map((path) => ({ path, change: "created", type: "file", size: 1 }));
  const call = async (operation: string, { path }: { path: string }) => {
    if (operation === "changes") return { changes: { count: names.length, diffBytes, listBytes: 0, files } };
    onRead(path);
    return { bytes: new Uint8Array(1) };
  };
  const bucket = {
    put: async (key: string, { length }: Uint8Array) => {
      objects.set(key, length);
      onPut();
    },
    delete: async (keys: readonly string[]) => keys.forEach((key) => objects.delete(key)),
    get: async () => undefined,
    list: async () => ({ keys: [], truncated: false }),
  };
  const store = { files: { call } as unknown as FileOperations, objects: { bucket, prefix: () => "" } };
  const artifacts: Artifact[] = [];
  const failure = await collect(store, "t", { id: "s.t", directory: "/workspace", artifacts, isOver }).then(
    () => undefined,
    (error: unknown) => error,
  );
  return { artifacts: artifacts.map(({ path }) => path), objects: objects.size, failure };
}

it("artifacts count in the run's record although a later one could not be read", async () => {
  const { artifacts, objects, failure } = await collectFiles((path) => {
    if (path.endsWith("c")) throw sandboxUnresponsive(1);
  });
  expect(failure).toMatchObject({ code: "no_answer" });
  expect(artifacts).toEqual(["a", "b"]);
  expect(objects).toBe(2);
});

it("nothing is stored after the end of the run, whose record could not name it", async () => {
  let puts = 0;
  const { artifacts, objects } = await collectFiles(
    () => {},
    () => puts === 2,
    () => puts++,
  );
  expect(puts).toBe(2);
  expect(artifacts).toEqual(["a"]);
  expect(objects).toBe(1);
});

it("a file with the name of the server's artifact is stored under its absolute path", async () => {
  const { artifacts } = await collectFiles(
    () => {},
    () => false,
    () => {},
    { names: ["changes.diff", "changes.list"], diffBytes: 1 },
  );
  expect(artifacts).toEqual(["changes.diff", "/workspace/changes.diff", "changes.list"]);
});

/** The tests of Python kernels again, over what stands in for IPython on machines that have none. */
import { afterAll, expect, it } from "vitest";
import { Lab } from "./kernel-harness.ts";

/** Where the kernel's IPython comes from. */
async function origin(): Promise<string | undefined> {
  const lab = await Lab.open();
  const kernel = await lab.kernel("python");
  const { stdout } = await kernel.run("import IPython; print(IPython.__file__)");
  await lab.close();
  return stdout.text;
}

const STAND_IN = "/kernels/ipython/IPython/";

it("are about IPython itself where that is installed", async () => {
  delete process.env.SANDBOX_IPYTHON;
  expect(await origin()).not.toContain(STAND_IN);
  process.env.SANDBOX_IPYTHON = "stand-in";
});

it("are about the stand-in here", async () => {
  expect(await origin()).toContain(STAND_IN);
});

process.env.SANDBOX_IPYTHON = "stand-in";
afterAll(() => void delete process.env.SANDBOX_IPYTHON);

await import("./kernels-python.test.ts");
await import("./kernels-notebook.test.ts");

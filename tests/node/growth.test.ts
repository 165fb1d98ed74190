/** When data in sockets can be the reason why the kernel's memory has grown. */
import { expect, it } from "vitest";
import { KernelGrowth } from "../../local/engine/growth.ts";

/** @returns a function that measures after the slabs and the pages have grown by these amounts */
function startGrowth() {
  const used = { slabs: 1000, pages: 100 };
  const growth = new KernelGrowth(
    50,
    () => used.slabs + used.pages,
    () => used.pages,
  );
  return async (slabs: number, pages: number) => {
    used.slabs += slabs;
    used.pages += pages;
    const all = await growth.measure();
    return { all, isInPages: growth.isInPages, restart: () => growth.restart() };
  };
}

it("data in sockets can be the reason if pages have grown, and not if slabs have grown, for example because of files", async () => {
  const grow = startGrowth();
  await grow(0, 0);
  expect(await grow(100, 10)).toMatchObject({ all: 110, isInPages: false });
  expect(await grow(0, 50)).toMatchObject({ all: 160, isInPages: true });
});

it("pages that grow less than slabs each time add up", async () => {
  const grow = startGrowth();
  await grow(0, 0);
  const first = await grow(70, 40);
  expect(first).toMatchObject({ all: 110, isInPages: false });
  first.restart();
  await grow(0, 0);
  expect(await grow(70, 40)).toMatchObject({ all: 110, isInPages: true });
});

it("pages of which no sandbox is the reason do not count again", async () => {
  const grow = startGrowth();
  await grow(0, 0);
  const first = await grow(0, 100);
  expect(first).toMatchObject({ all: 100, isInPages: true });
  first.restart();
  await grow(0, 0);
  expect(await grow(100, 10)).toMatchObject({ all: 110, isInPages: false });
});

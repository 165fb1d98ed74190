import { expect, it } from "vitest";
import { FileLinks } from "../../../src/actors/file-links.ts";
import type { SandboxKV } from "../../../src/storage/sandbox-schema.ts";
import { runInActor } from "../support.ts";

const unused = () => Promise.reject(new Error("this test calls no sandbox"));

it("the server remembers used-up links until they expire, even more than a thousand, and unused links stay valid", async () => {
  await runInActor("used-links", (_sandbox, { storage: { kv } }) => {
    const links = new FileLinks(kv as SandboxKV, { call: unused });
    const epoch = links.epoch();
    const expires = Date.now() + 60_000;
    const useLink = (id: string, end: number) => {
      expect(links.claim({ id, expires: end })).toBe("claimed");
      links.releaseClaim({ id, expires: end }, true);
    };
    useLink("expired", Date.now() - 1);
    for (let n = 0; n < 1200; n++) useLink(String(n), expires);
    for (const id of ["0", "1199"]) expect(links.claim({ id, expires })).toBe("used");
    expect(links.isCurrentEpoch(epoch)).toBe(true);
    expect([...kv.list({ prefix: "file-links:used:" })]).toHaveLength(1200);
    links.onContainerEnd();
    expect([...kv.list({ prefix: "file-links:" })]).toEqual([]);
  });
});

it("the server keeps the newest 10,000 links of a sandbox, so that links cannot fill the disk", async () => {
  await runInActor("many-links", async (_sandbox, { storage: { kv } }) => {
    const link = (n: number, minutes: number) => ({
      direction: "download" as const,
      path: `/workspace/${n}`,
      epoch: "epoch",
      expires: Date.now() + minutes * 60_000,
    });
    const make = () => new FileLinks(kv as SandboxKV, { call: unused });
    const first = await make().keep(link(0, 10));
    const links = make();
    for (let n = 1; n < 10_000; n++) await links.keep(link(n, 120));
    expect(links.find(first)).toBeDefined();
    const last = await links.keep(link(10_000, 120));
    expect(links.find(first)).toBeUndefined();
    expect(links.find(last)).toBeDefined();
    for (let n = 0; n < 100; n++) await links.keep(link(10_000, 120));
    expect([...kv.list({ prefix: "file-links:kept:" })].length).toBeLessThanOrEqual(10_000);
    expect([...kv.list({ prefix: "file-links:kept:" })].length).toBeGreaterThan(9900);
  });
});

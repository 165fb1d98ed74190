/** What `npm start` does on a machine that lacks a requirement. The installation itself is a stub. */
import { execFileSync } from "node:child_process";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Installer, requireBubblewrap, requireLinux } from "../../cli/requirements.ts";
import type { Check } from "../../local/engine/check.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const CHECK = new URL("../../local/engine/check.ts", import.meta.url).href;

const WORKS: Check = { works: true, supported: new Set(), dropsRoot: false };
const MISSING: Check = { works: false, reason: "it is not installed", remedy: "Install it: the command" };

/** A machine without bubblewrap until the stub has installed it. */
function machine(canInstall: boolean, install: () => Promise<void> = async () => undefined) {
  const done = { installed: 0 };
  const installer: Installer = {
    check: async () => (done.installed > 0 ? WORKS : MISSING),
    canInstall: async () => canInstall,
    async install() {
      await install();
      done.installed += 1;
    },
  };
  return { done, installer };
}

describe("bubblewrap", () => {
  it("is installed if possible, with a message", async () => {
    const { done, installer } = machine(true);
    const messages: string[] = [];
    await requireBubblewrap((line) => messages.push(line), installer);
    expect(done.installed).toBe(1);
    expect(messages.join()).toContain("Installing bubblewrap");
  });

  it("is named as missing by an error with the command that installs it, and an alternative", async () => {
    const { done, installer } = machine(false);
    const refusal = requireBubblewrap(() => undefined, installer);
    await expect(refusal).rejects.toThrow(
      /it is not installed[^]*Install it: the command[^]*--isolation none/,
    );
    expect(done.installed).toBe(0);
  });

  it("is named as missing together with the package manager's error if the installation fails", async () => {
    const { installer } = machine(true, () => Promise.reject(new Error("E: no such package")));
    const refusal = requireBubblewrap(() => undefined, installer);
    await expect(refusal).rejects.toThrow(/Install it: the command[^]*E: no such package/);
  });
});

it("sandboxes start with a PATH that lacks the system's directories", () => {
  const script = `const { checkBubblewrap } = await import(${JSON.stringify(CHECK)}); console.log(await checkBubblewrap())`;
  const found = temporaryDirectory();
  symlinkSync("/usr/bin/bwrap", join(found, "bwrap"));
  for (const PATH of ["/nowhere", found]) {
    const options = { env: { PATH }, encoding: "utf8" } as const;
    expect(execFileSync(process.execPath, ["--input-type=module", "-e", script], options)).toContain(
      "works: true",
    );
  }
});

describe("the machine's system", () => {
  it.each([
    ["darwin", /macOS[^]*npm run dev:docker/],
    ["win32", /Windows[^]*npm run dev:docker[^]*WSL 2/],
    ["freebsd", /freebsd[^]*npm run dev:docker/],
  ] as const)("is refused with a message that names an alternative: %s", (platform, message) => {
    expect(() => requireLinux(platform)).toThrow(message);
  });
});

/**
 * The programs that the tests need in addition to Node. `npm test` checks them first. It installs missing ones if
 * that needs no password, as `npm start` does, and otherwise prints the command. It also installs Claude Code.
 */
import { execFileSync } from "node:child_process";
import { delimiter, join } from "node:path";
import { aptCommand, hasApt, install, mayInstall } from "../../cli/apt.ts";
import { findPythons, PACKAGES } from "../../local/engine/python.ts";
import { findChromium, isExecutable } from "./executable.ts";
import { installClaudeCode } from "./installed.ts";

interface Need {
  name: string;
  package: string;
}

const PROGRAMS: Record<string, string> = {
  bwrap: "bubblewrap",
  curl: "curl",
  git: "git",
  "fc-match": "fontconfig",
  ip: "iproute2",
  // For setpriv, setsid, nsenter and unshare.
  setpriv: "util-linux",
};

/** Only Debian's own Python finds Debian's packages. */
const PYTHON = "/usr/bin/python3";

const MODULES: Record<string, string> = {
  pip: "python3-pip",
  PIL: "python3-pil",
  tqdm: "python3-tqdm",
  ...Object.fromEntries(PACKAGES.map(({ module, debian }) => [module, debian])),
};

/** Fonts with the characters that the tests draw, by a character of each. */
const FONTS: Record<string, string> = {
  한: "fonts-wqy-microhei",
  ह: "fonts-lohit-deva",
  "🚀": "fonts-symbola",
};

/** The missing programs, fonts and modules. The search takes about 50 ms. */
async function findMissing(): Promise<Need[]> {
  const needs = Object.entries(PROGRAMS)
    .filter(([program]) => !onPath(program))
    .map(([name, from]) => ({ name, package: from }));
  if (findChromium() === undefined) needs.push({ name: "Chromium", package: "chromium" });
  needs.push(...absentFonts());
  const pythons = await findPythons();
  if (pythons.some(({ executable }) => absentModules(executable).length === 0)) return needs;
  const python = pythons.find(({ executable }) => executable === PYTHON);
  if (python === undefined) needs.push({ name: "python3", package: "python3" });
  const absent = python === undefined ? Object.keys(MODULES) : absentModules(PYTHON);
  for (const [module, from] of Object.entries(MODULES)) {
    if (absent.includes(module)) needs.push({ name: `${module} of ${PYTHON}`, package: from });
  }
  return needs;
}

function onPath(program: string): boolean {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .some((directory) => isExecutable(join(directory, program)));
}

function absentFonts(): Need[] {
  const needs = Object.entries(FONTS).map(([name, from]) => ({ name: `a font with ${name}`, package: from }));
  if (!onPath("fc-list")) return needs;
  return needs.filter((_need, index) => {
    const code = Object.keys(FONTS)[index]?.codePointAt(0)?.toString(16);
    return execFileSync("fc-list", [`:charset=${code}:color=false`]).length === 0;
  });
}

/** Searches for the modules without importing them, which would take a second. */
function absentModules(python: string): string[] {
  const question =
    "import sys, importlib.util as u; print(*(m for m in sys.argv[1:] if u.find_spec(m) is None))";
  const names = Object.keys(MODULES);
  return execFileSync(python, ["-c", question, ...names], { encoding: "utf8" })
    .split(/\s+/)
    .filter((name) => name !== "");
}

/** @throws Error with what is missing and the command that installs it */
async function installPrograms(say: (line: string) => void): Promise<void> {
  let needs = await findMissing();
  if (needs.length === 0) return;
  let trouble = "";
  if (mayInstall()) {
    const packages = packagesOf(needs);
    say(`Installing what the tests need, with apt-get: ${packages.join(" ")}`);
    await install(packages).catch((error: Error) => (trouble = `\n\n${error.message}`));
    needs = await findMissing();
    if (needs.length === 0) return;
  }
  const packages = packagesOf(needs);
  throw new Error(
    `The tests need programs that are missing here: ${needs.map(({ name }) => name).join(", ")}. ` +
      (hasApt()
        ? `Install it:\n\n  ${aptCommand(packages)}`
        : `Install it from your system's packages; Debian calls them: ${packages.join(" ")}`) +
      trouble,
  );
}

function packagesOf(needs: readonly Need[]): string[] {
  return [...new Set(needs.map((need) => need.package))];
}

try {
  // They run in parallel, because both mostly wait for the network.
  await Promise.all([installClaudeCode(), installPrograms((line) => void process.stderr.write(`${line}\n`))]);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

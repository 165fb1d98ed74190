/** Bundles the panel for browsers into `panel/built.js`, a module that the Worker imports. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BuildOptions, Plugin } from "esbuild";
import { UserError } from "../cli/exit.ts";
import { root } from "../cli/program-files.ts";
import { messageOf } from "../src/shared/text.ts";

const built = join(root, "panel/built.js");

export async function bundlePanel(): Promise<void> {
  // xterm.js is most of the code, and only browser windows show it. So it is in a separate file, which the page imports on demand.
  const terminal = await bundleFiles({
    entryPoints: [join(root, "panel/terminal-screen.ts")],
    entryNames: "[name]-[hash]",
    format: "esm",
    plugins: [xtermUnderPolicy],
  });
  const [terminalName = ""] = Object.keys(terminal);
  const shown = await bundleFiles({
    entryPoints: [join(root, "panel/page.tsx"), join(root, "panel/style.css")],
    entryNames: "page-[hash]",
    format: "iife",
    plugins: [leaveImport(`./${terminalName}`)],
  });
  const nameOf = (kind: string) => Object.keys(shown).find((name) => name.endsWith(kind));
  const page = { script: nameOf(".js"), style: nameOf(".css") };
  const files = { ...shown, ...terminal };
  const module = Object.entries({ files, page })
    .map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};\n`)
    .join("");
  // An unchanged file is not written, because builds of the Worker are cached by the times of their sources.
  if ((await readFile(built, "utf8").catch(() => "")) === module) return;
  // Another process may be reading the file, so it is replaced as a whole.
  const part = `${built}.${process.pid}`;
  try {
    await writeFile(part, module);
    await rename(part, built);
  } catch (error) {
    throw new UserError(
      `${built} cannot be written (${messageOf(error)}). Start the server once as the owner of this clone.`,
    );
  }
}

/** Bundles files. Returns the text of each output file, by its name. */
async function bundleFiles(options: BuildOptions): Promise<Record<string, string>> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    ...options,
    outdir: join(root, "panel"),
    bundle: true,
    minify: true,
    write: false,
    target: "es2022",
    charset: "utf8",
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    logLevel: "warning",
  });
  return Object.fromEntries(outputFiles.map(({ path, text }) => [basename(path), text]));
}

/**
 * Parts of xterm.js that the page's policy refuses, and replacements that it allows: `style` elements that scripts fill
 * (`panel/terminal-style.ts` has a replacement), and `style` attributes that are set as text.
 */
const ALLOWED: [refused: string, allowed: string, times: number][] = [
  ['createElement("style")', 'createElement("terminal-style")', 3],
  // oxlint-disable-next-line no-template-curly-in-string
  ['t.setAttribute("style",`${t.getAttribute("style")||""}${e};`)', "t.style.cssText+=e", 1],
];

/** The build fails if a release of xterm.js has more or fewer of these parts. */
const xtermUnderPolicy: Plugin = {
  name: "xterm-under-policy",
  setup({ onLoad, esbuild }) {
    onLoad({ filter: /@xterm[\\/]xterm[\\/]lib[\\/]xterm\.mjs$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8");
      for (const [refused, allowed, times] of ALLOWED) {
        const parts = contents.split(refused);
        if (parts.length - 1 !== times)
          throw new Error(
            `${path} must have ${refused} ${times} times, but has it ${parts.length - 1} times.`,
          );
        contents = parts.join(allowed);
      }
      return { contents, loader: "js" };
    });
    onLoad({ filter: /@xterm[\\/]xterm[\\/]css[\\/]xterm\.css$/ }, async ({ path }) => {
      const options = { loader: "css", minify: true, legalComments: "none" } as const;
      const { code } = await esbuild.transform(await readFile(path, "utf8"), options);
      return { contents: code, loader: "text" };
    });
  },
};

/** Leaves the import of the terminal's file to the browser. */
const leaveImport = (path: string): Plugin => ({
  name: "imported-from",
  setup({ onResolve }) {
    onResolve({ filter: /\/terminal-screen\.ts$/ }, () => ({ path, external: true }));
  },
});

if (import.meta.main) await bundlePanel();

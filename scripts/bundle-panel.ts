/** Bundles the panel for browsers into `panel/built.js`, a module that the Worker imports. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BuildOptions, Plugin } from "esbuild";
import { UserError } from "../cli/user-error.ts";
import { root } from "../cli/program-files.ts";
import { messageOf } from "../src/shared/text.ts";

const built = join(root, "panel/built.js");

export async function bundlePanel(): Promise<void> {
  const files = await bundled({
    entryPoints: [join(root, "panel/main.tsx"), join(root, "panel/style.css")],
    entryNames: "page-[hash]",
    // Modules that are imported on demand become separate files.
    splitting: true,
    chunkNames: "[name]-[hash]",
    format: "esm",
    plugins: [xtermUnderPolicy],
  });
  const named = (kind: RegExp) => Object.keys(files).find((name) => kind.test(name));
  const page = { script: named(/^page-.*\.js$/), style: named(/^page-.*\.css$/) };
  const app = appPage(
    await bundled({
      entryPoints: { script: join(root, "panel/chat-main.tsx"), style: join(root, "panel/style.css") },
      format: "iife",
      plugins: [withoutTerminal],
    }),
  );
  const module = Object.entries({ files, page, app })
    .map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};\n`)
    .join("");
  // Builds of the Worker are cached by the times of their source files.
  if ((await readFile(built, "utf8").catch(() => "")) === module) return;
  // Renamed into place, because another process may be reading it.
  const part = `${built}.${process.pid}`;
  try {
    await writeFile(part, module);
    await rename(part, built);
  } catch (error) {
    throw new UserError(
      `${built} cannot be written (${messageOf(error)}). Start the server once as the user whose clone this is.`,
    );
  }
}

/** The text of each file, by its name. */
async function bundled(options: BuildOptions): Promise<Record<string, string>> {
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

/** One document of everything: clients show it in a frame that may load nothing. esbuild writes no `</script` or `</style`. */
function appPage(files: Record<string, string>): string {
  return `<!doctype html>
<html lang="en" data-display="inline">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sandboxes</title>
<style>${files["style.css"]}</style>
</head>
<body><script>${files["script.js"]}</script></body>
</html>
`;
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

/** Fails where another release of xterm.js has other places. */
const xtermUnderPolicy: Plugin = {
  name: "xterm-under-policy",
  setup({ onLoad }) {
    onLoad({ filter: /@xterm[\\/]xterm[\\/]lib[\\/]xterm\.mjs$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8");
      for (const [refused, allowed, times] of ALLOWED) {
        const parts = contents.split(refused);
        if (parts.length - 1 !== times)
          throw new Error(`${path} has ${refused} ${parts.length - 1} times in place of ${times}.`);
        contents = parts.join(allowed);
      }
      return { contents, loader: "js" };
    });
    onLoad({ filter: /@xterm[\\/]xterm[\\/]css[\\/]xterm\.css$/ }, async ({ path }) => ({
      contents: await readFile(path, "utf8"),
      loader: "text",
    }));
  },
};

/** The page in a chat may load nothing, and shows no terminal. */
const withoutTerminal: Plugin = {
  name: "without-terminal",
  setup({ onResolve }) {
    onResolve({ filter: /\/terminal-screen\.ts$/ }, ({ path }) => ({ path, external: true }));
  },
};

if (import.meta.main) await bundlePanel();

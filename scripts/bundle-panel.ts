/** Bundles the panel for browsers into `panel/built.js`, a module that the Worker imports. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BuildOptions } from "esbuild";
import { UserError } from "../cli/errors.ts";
import { root } from "../cli/places.ts";
import { messageOf } from "../src/shared/text.ts";

const built = join(root, "panel/built.js");

export async function bundlePanel(): Promise<void> {
  const files = await bundled({
    entryPoints: [join(root, "panel/main.tsx"), join(root, "panel/style.css")],
    entryNames: "[name]-[hash]",
    format: "esm",
  });
  const named = (kind: string) => Object.keys(files).find((name) => name.endsWith(kind));
  const page = { script: named(".js"), style: named(".css") };
  const app = appPage(
    await bundled({
      entryPoints: { script: join(root, "panel/chat-main.tsx"), style: join(root, "panel/style.css") },
      format: "iife",
    }),
  );
  const module = Object.entries({ files, page, app })
    .map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};\n`)
    .join("");
  // Builds of the Worker are kept by the times of what they are made of.
  if ((await readFile(built, "utf8").catch(() => "")) === module) return;
  // Whole or not at all, because another process may be reading it.
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

if (import.meta.main) await bundlePanel();

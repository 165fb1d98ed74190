/** Bundles the panel for browsers into `panel/built.js`, a module that the Worker imports. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../cli/errors.ts";
import { root } from "../cli/places.ts";
import { messageOf } from "../src/shared/text.ts";

const built = join(root, "panel/built.js");

export async function bundlePanel(): Promise<void> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [join(root, "panel/main.tsx"), join(root, "panel/style.css")],
    outdir: join(root, "panel"),
    entryNames: "[name]-[hash]",
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    logLevel: "warning",
  });
  const files = Object.fromEntries(outputFiles.map(({ path, text }) => [basename(path), text]));
  const named = (kind: string) => Object.keys(files).find((name) => name.endsWith(kind));
  const page = { script: named(".js"), style: named(".css") };
  const module = `export const files = ${JSON.stringify(files)};\nexport const page = ${JSON.stringify(page)};\n`;
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

if (import.meta.main) await bundlePanel();

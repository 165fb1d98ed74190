/**
 * Bundles each Node program that the server runs in sandboxes into one file, because one file starts much faster than many
 * modules. There are two programs: sandboxd in all sandboxes, and the control server only in local ones.
 */
import { existsSync } from "node:fs";
import { copyFile, mkdir, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Plugin } from "esbuild";
import { CACHE_DIRECTORY, isWritable, keyOf } from "../cli/bundle.ts";
import { isPackaged, root } from "../cli/program-files.ts";

/** The bundle for the image. It is built with each deployment, and never committed. */
export const imageBundle = join(root, "container/sandboxd/dist/sandboxd.cjs");

/** The bundles' paths in the npm package, which has no sources. */
const BUILT = { sandboxd: "container/sandboxd.cjs", control: "local/runtime/control.cjs" };

export async function bundleSandboxd(outfile: string): Promise<void> {
  await bundleOrCopy("container/sandboxd/main.ts", BUILT.sandboxd, outfile);
}

export async function bundleControlServer(outfile: string): Promise<void> {
  await bundleOrCopy("local/runtime/main.ts", BUILT.control, outfile);
}

export async function bundleForPackage(dist: string): Promise<void> {
  await bundleSandboxd(join(dist, BUILT.sandboxd));
  await bundleControlServer(join(dist, BUILT.control));
}

/** Bundles a program, or copies its bundle from the npm package or the cache. */
async function bundleOrCopy(entry: string, built: string, outfile: string): Promise<void> {
  await mkdir(dirname(outfile), { recursive: true });
  if (isPackaged) return copyFile(join(root, built), outfile);
  const key = keyOf(join(root, "scripts/bundle-sandboxd.ts"));
  const cached = join(CACHE_DIRECTORY, `${key}-${basename(built)}`);
  if (existsSync(cached)) return copyFile(cached, outfile);
  await bundleProgram(join(root, entry), outfile);
  if (!isWritable()) return;
  const part = `${cached}.${process.pid}`;
  await copyFile(outfile, part);
  await rename(part, cached);
}

/**
 * Loads https, tls and zlib when a program first uses them. Our programs use them late or never, and loading them takes 17 ms of
 * processor time and 2.5 MiB.
 */
const loadedOnUse: Plugin = {
  name: "loaded on use",
  setup(build) {
    const namespace = "loaded-on-use";
    build.onResolve({ filter: /^(node:)?(https|tls|zlib)$/ }, ({ path, namespace: importerNamespace }) =>
      importerNamespace === namespace
        ? { path, external: true }
        : { path: path.replace("node:", ""), namespace },
    );
    build.onLoad({ filter: /.*/, namespace }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => name !== "default");
      const contents = `for (const name of ${JSON.stringify(names)})
        Object.defineProperty(exports, name, { enumerable: true, get: () => require("${path}")[name] });`;
      return { contents };
    });
  },
};

export async function bundleProgram(entry: string, outfile: string): Promise<void> {
  const { build } = await import("esbuild");
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    legalComments: "none",
    logLevel: "warning",
    plugins: [loadedOnUse],
    // Without these values, ws searches all parent directories for bufferutil and utf-8-validate, which sandboxes do not have.
    define: { "process.env.WS_NO_BUFFER_UTIL": '"1"', "process.env.WS_NO_UTF_8_VALIDATE": '"1"' },
  });
}

if (import.meta.main) await bundleSandboxd(imageBundle);

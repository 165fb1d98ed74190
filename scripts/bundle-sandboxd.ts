/** Bundles sandboxd: for the image into `container/sandboxd/dist`, from where it copies it, and for local sandboxes. */
import { existsSync } from "node:fs";
import { copyFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { CACHE_DIRECTORY, isWritable, keyOf } from "../cli/bundle.ts";
import { isPackaged, root } from "../cli/program-files.ts";

/** For the image. Built with each deployment, and not committed. */
export const imageBundle = join(root, "container/sandboxd/dist/sandboxd.cjs");

/** In the package, where the bundle is made already. */
export const builtBundle = "container/sandboxd.cjs";

/** @param outfile the path of the bundle */
export async function bundleSandboxd(outfile: string): Promise<void> {
  if (isPackaged) return copyFile(join(root, builtBundle), outfile);
  const kept = join(CACHE_DIRECTORY, `${keyOf(join(root, "scripts/bundle-sandboxd.ts"))}.cjs`);
  if (existsSync(kept)) return copyFile(kept, outfile);
  const { build } = await import("esbuild");
  await build({
    entryPoints: [join(root, "container/sandboxd/main.ts")],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    legalComments: "none",
    logLevel: "warning",
  });
  if (!isWritable()) return;
  const part = `${kept}.${process.pid}`;
  await copyFile(outfile, part);
  await rename(part, kept);
}

if (import.meta.main) await bundleSandboxd(imageBundle);

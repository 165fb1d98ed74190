/** Bundles sandboxd into `container/sandboxd/dist`, from where the image copies it. */
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = new URL("..", import.meta.url);

/** For the image. Made again with each deployment, and in no commit. */
export const imageBundle = fileURLToPath(new URL("container/sandboxd/dist/sandboxd.cjs", root));

/** @param outfile where the bundle is to be */
export async function bundleSandboxd(outfile: string): Promise<void> {
  await build({
    entryPoints: [fileURLToPath(new URL("container/sandboxd/main.ts", root))],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    legalComments: "none",
    logLevel: "warning",
  });
}

if (import.meta.main) await bundleSandboxd(imageBundle);

/** A copy of a deployment's configuration, which tests change. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "./server.ts";

export class DeploymentCopy {
  readonly directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-deployment-"));

  constructor() {
    mkdirSync(join(this.directory, "src"));
    for (const file of ["wrangler.jsonc", "Dockerfile", "package.json", "src/package.json", "src/index.ts"])
      cpSync(join(repository, file), join(this.directory, file));
  }

  /** @throws Error if the file does not contain the text, because the test would change nothing */
  replace(file: string, what: string | RegExp, by: string): void {
    const before = this.read(file);
    const after = before.replace(what, by);
    if (after === before) throw new Error(`${file} has no ${what}.`);
    writeFileSync(join(this.directory, file), after);
  }

  read(file: string): string {
    return readFileSync(join(this.directory, file), "utf8");
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}

/** The skills of plugin/skills as the server publishes them: src/resources/skills.json. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { skillEntry } from "@modelcontextprotocol/server/ext/skills";
import { root } from "../cli/program-files.ts";

/**
 * The skills as JSON. Each skill is one file, because the server serves only SKILL.md. Throws if a skill breaks a rule of the
 * specification.
 */
export async function publishedSkills(): Promise<string> {
  const folder = join(root, "plugin/skills");
  const published = await Promise.all(
    readdirSync(folder)
      .toSorted()
      .map(async (name) => {
        const files = readdirSync(join(folder, name));
        if (files.join() !== "SKILL.md") throw new Error(`${name}: the server serves SKILL.md only`);
        const text = readFileSync(join(folder, name, "SKILL.md"), "utf8");
        return { skill: await skillEntry(name, { "SKILL.md": text }), text };
      }),
  );
  return `${JSON.stringify(published, null, 2)}\n`;
}

/** The skills of `plugin/skills` (MCP's Skills extension, SEP-2640). `npm run docs` writes skills.json. */
import type { ReadResourceResult, Resource } from "@modelcontextprotocol/server";
import { type Skill, SkillsExtension } from "@modelcontextprotocol/server/ext/skills";
import published from "./skills.json" with { type: "json" };

const MIME_TYPE = "text/markdown";

/** All caches may keep skills for an hour: skills change only with a deployment, and are the same for everybody. */
const CACHE = { ttlMs: 3_600_000, cacheScope: "public" } as const;

const skills = new Map<string, { skill: Skill; text: string }>(
  published.map((entry) => [entry.skill.uri, entry]),
);

export const skillsExtension = new SkillsExtension({
  cacheHint: CACHE,
  source: {
    list: async () => ({ skills: published.map(({ skill }) => skill) }),
    get: async (uri) => skills.get(uri)?.skill,
    read: async (uri) => {
      const text = skills.get(uri)?.text;
      return text === undefined ? undefined : { text, mimeType: MIME_TYPE };
    },
  },
});

export function readSkill(uri: string): ReadResourceResult | undefined {
  const text = skills.get(uri)?.text;
  return text === undefined ? undefined : { contents: [{ uri, mimeType: MIME_TYPE, text }], ...CACHE };
}

export const skillResources: readonly Resource[] = published.map(({ skill: { uri, frontmatter }, text }) => ({
  uri,
  name: frontmatter.name,
  description: frontmatter.description,
  mimeType: MIME_TYPE,
  size: new TextEncoder().encode(text).length,
}));

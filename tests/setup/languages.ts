/** What the tests need of each language of kernels. */
import type { Language } from "../../src/shared/languages.ts";

interface LanguageFacts {
  /** The line of the Dockerfile that brings the language's program. */
  inImage: RegExp;
  /** Code that prints an environment variable, or None. */
  printVariable(name: string): string;
}

export const LANGUAGE_FACTS: Record<Language, LanguageFacts> = {
  python: {
    inImage: /^FROM docker\.io\/cloudflare\/sandbox:\S+-python$/m,
    printVariable: (name) => `import os; print(os.environ.get("${name}"))`,
  },
  javascript: {
    inImage: /^FROM docker\.io\/cloudflare\/sandbox:/m,
    printVariable: (name) => `console.log(process.env.${name} ?? "None")`,
  },
  typescript: {
    inImage: /^FROM docker\.io\/cloudflare\/sandbox:/m,
    printVariable: (name) => `console.log(process.env.${name} ?? "None" as string)`,
  },
};

/** What `scripts/bundle-panel.ts` makes of the panel for the Worker: `built.js`, which is in no commit. */

/** The content of each file, by its name. */
export const files: Record<string, string>;

/** The names of those that the page loads. */
export const page: { script: string; style: string };

/** The page for clients that show it in a chat: one document, with all it needs. */
export const app: string;

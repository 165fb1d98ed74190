/** The result of `scripts/bundle-panel.ts` for the Worker: `built.js`, which is never committed. */

export const files: Record<string, string>;

export const page: { script: string; style: string };

/** `scripts/bundle-panel.ts` makes `built.js`, which is never committed. */

export const files: Record<string, string>;

export const page: { script: string; style: string };

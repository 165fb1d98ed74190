/** `scripts/bundle-panel.ts` bundles a package's style sheet as text. */
declare module "*.css" {
  const text: string;
  export default text;
}

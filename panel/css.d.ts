/** The style sheet of a package, which `scripts/bundle-panel.ts` bundles as text. */
declare module "*.css" {
  const text: string;
  export default text;
}

/** The style sheet of a package as text, by `scripts/bundle-panel.ts`. */
declare module "*.css" {
  const text: string;
  export default text;
}

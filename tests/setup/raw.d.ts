/** Vite imports the text of such a file. */
declare module "*?raw" {
  const text: string;
  export default text;
}

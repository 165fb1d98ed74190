/** wrangler compiles what is imported from a file of this name. */
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}

/**
 * The lint rule `layers/order`. Its option in .oxlintrc.json lists folders and files from top to bottom. A file imports only its
 * own entry and those below. The longest entry that matches a path counts, and an entry may list several paths of one layer.
 */
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dirname, "..");

interface Import {
  source: { value: string } | null;
}

interface Context {
  filename: string;
  options: readonly unknown[];
  report(problem: { node: object; message: string }): void;
}

function create(context: Context) {
  const layers = context.options as readonly (string | readonly string[])[];
  const entries = layers
    .flatMap((paths, level) => [paths].flat().map((path) => ({ path, level })))
    .toSorted((a, b) => b.path.length - a.path.length);
  const entryOf = (path: string) =>
    entries.find((entry) => path === entry.path || path.startsWith(`${entry.path}/`));
  const file = relative(ROOT, context.filename);
  const own = entryOf(file);
  const check = (node: Import) => {
    const { value = "" } = node.source ?? {};
    const imported = value.startsWith(".") ? entryOf(join(dirname(file), value)) : undefined;
    if (own === undefined || imported === undefined || imported.level >= own.level) return;
    const message = `${own.path} must not import ${imported.path}, which is above ${own.path} in the list of layers in .oxlintrc.json`;
    context.report({ node, message });
  };
  return {
    ImportDeclaration: check,
    ImportExpression: check,
    ExportAllDeclaration: check,
    ExportNamedDeclaration: check,
  };
}

export default { meta: { name: "layers" }, rules: { order: { meta: { schema: false }, create } } };

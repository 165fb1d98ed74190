/**
 * Two lint rules. `layers/texts` keeps the sentences that users and models read in the `texts.ts` of their area. `layers/order`
 * keeps imports in one direction: its option in .oxlintrc.json lists folders and files from top to bottom. A file imports only its
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

interface Text {
  value?: unknown;
  quasis?: { value: { cooked: string } }[];
  parent: { type: string; key?: { name?: string }; callee?: { name?: string; property?: { name?: string } } };
}

/** An inserted value in a template, which counts as a word. Texts contain no such character. */
const VALUE = "\u{fffc}";

/** At least three words, from a capital letter or a value to a period. */
const SENTENCE = /^[A-Z\u{fffc}]\S*\s+\S+\s.*\.$/su;

/** A sentence that ends with a value: a capitalized word, and at least two other words before the value. */
const BEFORE_VALUE = /^[A-Z][a-z]*(?:\s+\S+){2,}\s+\S*\u{fffc}$/su;

/** Reports sentences, except descriptions in a schema, HTML, and messages of errors that only the log shows. */
function findSentences(context: Context) {
  const check = (node: Text) => {
    const { value = node.quasis?.map((quasi) => quasi.value.cooked).join(VALUE), parent } = node;
    const user = parent.callee?.property?.name ?? parent.callee?.name ?? parent.key?.name ?? "";
    const isInternal = parent.type === "NewExpression" && !/^(?:Tool|Ending)Error$/.test(user);
    const isOther =
      isInternal || parent.type === "TaggedTemplateExpression" || /^descri(?:be|ption)$/.test(user);
    if (typeof value !== "string" || isOther) return;
    // Labels of the panel are in its markup.
    const isLabel = parent.type === "JSXExpressionContainer";
    if (!SENTENCE.test(value) && (isLabel || !BEFORE_VALUE.test(value))) return;
    context.report({ node, message: "Texts for users and models belong in the texts.ts of their area" });
  };
  return { Literal: check, TemplateLiteral: check };
}

const order = { meta: { schema: false }, create };
const texts = { meta: { schema: false }, create: findSentences };

export default { meta: { name: "layers" }, rules: { order, texts } };

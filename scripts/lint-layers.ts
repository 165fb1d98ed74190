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

interface Template {
  quasis: { value: { cooked: string } }[];
}

interface Text extends Partial<Template> {
  value?: unknown;
  parent: {
    type: string;
    key?: { name?: string };
    callee?: { name?: string; property?: { name?: string } };
    tag?: { name?: string };
  };
}

/** An inserted value in a template, which counts as a word. Texts contain no such character. */
const VALUE = "\u{fffc}";

/** At least three words, from a capital letter or a value to a period. */
const SENTENCE = /^[A-Z\u{fffc}]\S*\s+\S+\s.*\.$/su;

/** A sentence that ends with a value: a capitalized word, and at least two other words before the value. */
const BEFORE_VALUE = /^[A-Z][a-z]*(?:\s+\S+){2,}\s+\S*\u{fffc}$/su;

/** At least three words in JSX, the last of them at the end of a sentence. Elements may begin and end the sentence. */
const SENTENCE_PART = /\S+\s+\S+\s+(?:\S+\s+)*\S*[.?!:](?:\s|$)/u;

/** Errors with texts for callers: of the server (`ToolError`), of the client library, and of the SDKs that its adapters serve. */
const SHOWN_ERROR = /^(?:Tool|Ending|Call|Unavailable|User|Sandbox\w*)Error$/;

/** The parts of markup that are not words for readers. */
const CODE_AND_TAGS = /<code>.*?<\/code>|<[^>]*>|&\w+;/gsu;
const ATTRIBUTE = /[\w-]+="[^"]*"/gu;
const NAMING_ATTRIBUTE = /\s(?:aria-label|alt|title)="[^"]*\p{L}/u;

function textOf({ quasis }: Template): string {
  return quasis.map((quasi) => quasi.value.cooked).join(VALUE);
}

/** Whether an HTML template has words besides its values. */
function hasWords(html: string): boolean {
  if (NAMING_ATTRIBUTE.test(html)) return true;
  // Without a tag, the template may be the inside of a tag: attributes, and one that has no value.
  if (!html.includes("<")) return /\p{L}.*\s\S|\s\S.*\p{L}/su.test(html.replace(ATTRIBUTE, "").trim());
  return /\p{L}/u.test(html.replace(CODE_AND_TAGS, ""));
}

/**
 * Reports sentences, and each word in an HTML template. Does not report descriptions in a schema, messages of errors that only the
 * log shows, and labels in JSX.
 */
function findSentences(context: Context) {
  const report = (node: object) =>
    context.report({ node, message: "Texts for users and models belong in the texts.ts of their area" });
  const check = (node: Text) => {
    const { value = node.quasis && textOf(node as Template), parent } = node;
    const user = parent.callee?.property?.name ?? parent.callee?.name ?? parent.key?.name ?? "";
    const isInternal = parent.type === "NewExpression" && !SHOWN_ERROR.test(user);
    const isForeign = parent.type === "TaggedTemplateExpression" && parent.tag?.name !== "sentence";
    if (typeof value !== "string" || isInternal || isForeign || /^descri(?:be|ption)$/.test(user)) return;
    // Labels of the panel are in its markup.
    const isLabel = parent.type === "JSXExpressionContainer";
    if (!SENTENCE.test(value) && (isLabel || !BEFORE_VALUE.test(value))) return;
    report(node);
  };
  const checkMarkup = ({ tag, quasi }: { tag: { name?: string }; quasi: Template }) => {
    if (tag.name === "markup" && hasWords(textOf(quasi))) report(quasi);
  };
  const checkJSX = (node: { value: string }) => {
    if (SENTENCE_PART.test(node.value)) report(node);
  };
  return {
    Literal: check,
    TemplateLiteral: check,
    TaggedTemplateExpression: checkMarkup,
    JSXText: checkJSX,
  };
}

const order = { meta: { schema: false }, create };
const texts = { meta: { schema: false }, create: findSentences };

export default { meta: { name: "layers" }, rules: { order, texts } };

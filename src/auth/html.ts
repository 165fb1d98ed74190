/** HTML templates. Every value is escaped, except instances of `HTML`. */

export class HTML {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Value = HTML | string | number | false | undefined | readonly Value[];

/** An HTML template. False and undefined render as nothing. Not named `html`, which formatters rewrite. */
export function markup(strings: TemplateStringsArray, ...values: Value[]): HTML {
  return new HTML(String.raw({ raw: strings }, ...values.map(renderValue)));
}

function renderValue(value: Value): string {
  if (value instanceof HTML) return value.text;
  if (value === false || value === undefined) return "";
  if (typeof value === "object") return value.map(renderValue).join("");
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const NAME_CHARS = 60;

/**
 * Makes a name from outside safe to show: one line of at most NAME_CHARS characters, without control, bidirectional and invisible
 * characters, so that it cannot imitate other text of the page. Empty if nothing visible is left.
 */
export function makePlain(name: string): string {
  const line = name
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Cs}]/gu, " ")
    // Invisible characters that Unicode counts as letters or symbols: Hangul fillers, the empty braille pattern, the null
    // notehead.
    .replace(/[\u115f\u1160\u3164\uffa0\u2800\u{1d159}]/gu, " ")
    .replace(/\s+/g, " ")
    .trim();
  // Combining marks and variation selectors alone are invisible.
  if (!/[^\p{M}\p{Default_Ignorable_Code_Point}\s]/u.test(line)) return "";
  const characters = Array.from(line);
  return characters.length > NAME_CHARS ? `${characters.slice(0, NAME_CHARS - 1).join("")}…` : line;
}

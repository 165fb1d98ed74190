/** HTML that cannot be broken out of: every value put into a template is escaped unless it is HTML itself. */

export class HTML {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Value = HTML | string | number | false | undefined | readonly Value[];

/** A template of HTML. (Not called `html`: a formatter takes that for leave to move its white space.) False and undefined put in nothing, a list its parts. */
export function markup(strings: TemplateStringsArray, ...values: Value[]): HTML {
  return new HTML(String.raw({ raw: strings }, ...values.map(rendered)));
}

function rendered(value: Value): string {
  if (value instanceof HTML) return value.text;
  if (value === false || value === undefined) return "";
  if (typeof value === "object") return value.map(rendered).join("");
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * A name somebody gave themselves, in a form that cannot pretend to be something else on the page: one line of at most
 * `limit` characters, without control characters and without those that turn the direction of writing or stand for nothing
 * seen. Empty when nothing of it can be seen.
 */
export function plain(name: string, limit = 60): string {
  const line = name
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Cs}]/gu, " ")
    // Blanks that are letters and symbols: fillers of Hangul, the empty braille pattern, the null notehead.
    .replace(/[\u115f\u1160\u3164\uffa0\u2800\u{1d159}]/gu, " ")
    .replace(/\s+/g, " ")
    .trim();
  // Marks and selectors of a variation are seen on something else alone.
  if (!/[^\p{M}\p{Default_Ignorable_Code_Point}\s]/u.test(line)) return "";
  const characters = Array.from(line);
  return characters.length > limit ? `${characters.slice(0, limit - 1).join("")}…` : line;
}

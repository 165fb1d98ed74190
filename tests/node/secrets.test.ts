/** How a request gets a secret, and how a response loses it: `src/shared/secrets.ts` and `src/shared/mask.ts`. */
import * as fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { Mask } from "../../src/shared/mask.ts";
import { PatternAutomaton } from "../../src/shared/pattern-automaton.ts";
import {
  type SecretPlace,
  type Secret,
  placeholders,
  addSecrets,
  secretList,
  secretsOfHost,
  secretsFor,
} from "../../src/shared/secrets.ts";

const VALUE = `s3cr+t/"va'lue&<\\x`;

const hex = (character: string) => character.charCodeAt(0).toString(16);

/** Percent-encodes each character except letters and digits. */
const PERCENT = VALUE.replace(/\W/g, (one) => `%${hex(one).toUpperCase()}`);

function secretOf(place: Partial<SecretPlace>, more: Partial<Secret> = {}): Secret {
  const completePlace = {
    in: "header",
    name: "authorization",
    template: "Bearer {value}",
    ...place,
  } as SecretPlace;
  return {
    name: "api",
    hosts: ["api.example.com"],
    value: VALUE,
    principals: undefined,
    variable: undefined,
    ...more,
    place: completePlace,
  };
}

const bearer = secretOf({});
const basic = secretOf({ in: "basic", template: "user:{value}" });
const query = secretOf({ in: "query", name: "key", template: "{value}" });

describe("a request", () => {
  const put = (secrets: Secret[], from: string, given: Record<string, string> = {}) => {
    const [url, headers] = [new URL(from), new Headers(given)];
    const used = addSecrets(secrets, headers, url);
    return { url: url.href, headers: Object.fromEntries(headers), used };
  };

  it("contains the value once in its query, and keeps the rest of the query", () => {
    const { url } = put([query], "https://api.example.com/a?x=%7e+b&key=one&%6bey=two&y");
    expect(url).toBe(`https://api.example.com/a?x=%7e+b&y&key=s3cr%2Bt%2F%22va%27lue%26%3C%5Cx`);
    expect(new URL(url).searchParams.getAll("key")).toEqual([VALUE]);
  });

  it("contains the value once in its query, however the sandbox spells the name of the parameter", () => {
    const name = "k y%41+/";
    const exotic = secretOf({ in: "query", name, template: "{value}" });
    const spelled = Array.from(name, (one) => {
      const code = `%${hex(one)}`;
      const plain = { " ": ["+", "%20"], "%": [code], "+": [code.toUpperCase()] }[one] ?? [one];
      return fc.constantFrom(...plain, code, code.toUpperCase());
    });
    const part = fc.oneof(
      fc.tuple(...spelled).map((parts) => parts.join("")),
      fc.string({ unit: "binary" }),
    );
    const property = fc.property(fc.array(part), (names) => {
      const given = new URL(`https://api.example.com/?${names.map((one) => `${one}=x`).join("&")}`);
      const others = [...given.searchParams].filter(([one]) => one !== name);
      expect([...new URL(put([exotic], given.href).url).searchParams]).toEqual([...others, [name, VALUE]]);
    });
    fc.assert(property);
  });

  it("contains no placeholder of its secret in another header, where an API would refuse it as a wrong key", () => {
    const headers = {
      authorization: "Bearer sandbox-mcp-secret-api",
      other: "Bearer sandbox-mcp-secret-else",
    };
    const key = secretOf({ name: "x-api-key", template: "{value}" });
    expect(put([key], "https://api.example.com/", headers).headers).toEqual({
      "x-api-key": VALUE,
      other: headers.other,
    });
  });

  it("contains the first of two secrets for the same place, and both secrets for two places", () => {
    const other = secretOf({ name: "x-key", template: "{value}" }, { name: "other" });
    expect(put([bearer, basic, other], "https://api.example.com/").used).toEqual([bearer, other]);
  });
});

describe("a secret", () => {
  it("belongs only to its hosts and principals", () => {
    const wide = secretOf({}, { hosts: ["*.example.com"], principals: ["token:ci"] });
    expect(secretsOfHost([bearer, wide], "api.example.com")).toEqual([bearer, wide]);
    expect(secretsOfHost([bearer, wide], "b.example.com")).toEqual([wide]);
    for (const host of ["example.com", "api.example.com.evil.test", "evilapi.example.org", ""])
      expect(secretsOfHost([bearer, wide], host)).toEqual([]);
    expect(secretsFor([bearer, wide], "token:ci")).toEqual([bearer, wide]);
    expect(secretsFor([bearer, wide], "owner")).toEqual([bearer]);
    expect(secretsFor([bearer, wide], undefined)).toEqual([bearer]);
  });

  it("goes into a header, the query or basic authentication", () => {
    const entry = { name: "a", hosts: ["API.Example.com."], value: "0123456789abcdef" };
    const parsed = secretList.parse([
      { ...entry, header: "X-Key: {value}", variable: "API_KEY" },
      { ...entry, name: "b", query: "key={value}" },
      { ...entry, name: "c", basic: "{value}:" },
    ]);
    expect(parsed.map(({ place }) => place)).toEqual([
      { in: "header", name: "x-key", template: "{value}" },
      { in: "query", name: "key", template: "{value}" },
      { in: "basic", name: "authorization", template: "{value}:" },
    ]);
    expect(parsed[0]?.hosts).toEqual(["api.example.com"]);
    expect(placeholders(parsed)).toEqual({ API_KEY: "sandbox-mcp-secret-a" });
  });
});

/** Masks a body that arrives in pieces of these lengths. */
function maskInPieces(body: string, secrets: Secret[], lengths: readonly number[]): string[] {
  const bytes = new TextEncoder().encode(body);
  const mask = new Mask(secrets).body();
  const shown: Uint8Array[] = [];
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const end = at + (lengths[index % lengths.length] ?? 1);
    shown.push(mask.next(bytes.slice(at, end)));
    at = end;
  }
  shown.push(mask.end());
  return shown.filter(({ length }) => length > 0).map((piece) => new TextDecoder().decode(piece));
}

describe("a response", () => {
  it.each([
    ["as it is", VALUE],
    ["in a URL", encodeURIComponent(VALUE)],
    ["in a form", new URLSearchParams({ a: VALUE }).toString().slice(2)],
    ["in JSON", JSON.stringify(VALUE).slice(1, -1)],
    ["in a path as Python writes it", PERCENT.replaceAll("%2F", "/")],
    ["in a URL in lower case", PERCENT.toLowerCase()],
    ["in JSON as PHP writes it", JSON.stringify(VALUE).slice(1, -1).replaceAll("/", "\\/")],
    ["in JSON as Go writes it", VALUE.replace(/[<>&"\\=+]/g, (one) => `\\u00${hex(one)}`)],
    ["in JSON in capitals", VALUE.replace(/\W/g, (one) => `\\u00${hex(one).toUpperCase()}`)],
    ["in base64", btoa(VALUE).replace(/=+$/, "")],
    ["in base64 in a URL", encodeURIComponent(btoa(VALUE)).replace(/(%3D)+$/, "")],
    ["in what basic authentication sends", btoa(`user:${VALUE}`)],
  ])("is masked without a change of length if it contains the value %s", async (_how, text) => {
    const body = `{"echo": "${text}",\n "more": 1}`;
    const mask = new Mask([basic]);
    const masked = mask.text(body);
    expect(masked).toHaveLength(body.length);
    // The last character of base64 also has bits of the following text.
    expect(masked).not.toContain(text.slice(0, -1));
    expect(masked.replace(/\*+/, "").length).toBeLessThan(body.length - text.length + 4);
    expect(maskInPieces(body, [basic], [1]).join("")).toBe(masked);
    expect(new Headers(mask.headers(new Headers({ location: text }))).get("location")).not.toContain(text);
  });

  it("contains no trace of the value in base64, at any offset", () => {
    for (const before of ["", "a", "ab", "abc"])
      for (const after of ["", "x", "xy"]) {
        const encoded = btoa(before + VALUE + after);
        const masked = new Mask([bearer]).text(encoded);
        const last = Math.ceil(((before + VALUE).length * 8) / 6);
        const first = Math.floor((before.length * 8) / 6);
        expect(masked).toBe(encoded.slice(0, first) + "*".repeat(last - first) + encoded.slice(last));
      }
  });

  it("is masked in any spelling and in pieces", async () => {
    const schemes = [
      (one: string) => `%${hex(one)}`,
      (one: string) => `\\u00${hex(one)}`,
      (one: string) => (/["/\\]/.test(one) ? `\\${one}` : `\\u00${hex(one).toUpperCase()}`),
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...schemes),
        fc.array(fc.boolean(), { minLength: VALUE.length, maxLength: VALUE.length }),
        fc.constantFrom("", "&", "u00", "amp;", "s3", "\n", "\t"),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
        async (escape, isEscaped, around, lengths) => {
          const spelled = (one: string, index: number) =>
            isEscaped[index] || one === "\\" ? escape(one) : one;
          const text = [...VALUE].map(spelled).join("");
          const masked = maskInPieces(around + text + around, [bearer], lengths).join("");
          expect(masked).toBe(around + "*".repeat(text.length) + around);
        },
      ),
    );
  });

  it.each([
    ["AAAAAAAAAAAAAAAAAAAAAMLhe", "xy"],
    ["xxxxxxxxxxxxxxxx-Kq9", ""],
    ["abababababababababab!", "ab"],
  ])("is masked if the value begins with a repetition: %s", (value, before) => {
    const all = (spell: (one: string) => string) => [...value].map(spell).join("");
    for (const text of [
      all((one) => `\\u00${hex(one)}`),
      all((one) => `%${hex(one)}`),
      all((one) => `\\u00${hex(one)}`).replace("\\u0041", "A"),
    ]) {
      const masked = new Mask([secretOf({}, { value })]).text(`${before}${text}.`);
      expect(masked.slice(-text.length - 1)).toBe(`${"*".repeat(text.length)}.`);
    }
  });

  it.each(["%", "%3", "\\", "\\u003"])(
    "is masked completely if %s comes before the value, like the start of an escape",
    (before) => {
      for (const first of ["1", "s", '"', ";"]) {
        const masked = new Mask([secretOf({}, { value: first + VALUE })]).text(
          `a=${before}${first}${VALUE}.`,
        );
        expect(masked).toBe(`a=${"*".repeat(before.length + 1 + VALUE.length)}.`);
      }
    },
  );

  it("is masked in 300,000 equal characters, where the value could end at every one", () => {
    const [repeated, mask] = ["a".repeat(300_000), new Mask([secretOf({}, { value: "a".repeat(16) })])];
    expect(mask.text(`at 100% ${repeated} \\`) === `at 100% ${"*".repeat(repeated.length)} \\`).toBe(true);
  });

  it("is masked the same in pieces of any size", async () => {
    const other = secretOf({}, { value: `${VALUE.slice(-6)}12345678` });
    const part = fc.constantFrom(
      VALUE,
      VALUE.slice(0, -1),
      VALUE.slice(1),
      other.value,
      "12345678",
      "ab",
      "s3",
      // Only a part of a word of this length is held back.
      "ab".repeat(500),
      "",
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { maxLength: 8 }),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4000 })), {
          minLength: 1,
          maxLength: 5,
        }),
        async (parts, lengths) => {
          const body = parts.join("");
          const masked = maskInPieces(body, [bearer, other], lengths).join("");
          expect(masked).toBe(new Mask([bearer, other]).text(body));
          expect(masked).not.toContain(VALUE);
          expect(masked).not.toContain(other.value);
        },
      ),
    );
  });

  it.each([
    ["as it is", (value: string) => value],
    ["in a URL", (value: string) => encodeURIComponent(value)],
    ["in a URL in all characters", (value: string) => value.replace(/./g, (one) => `%${hex(one)}`)],
    ["in base64", (value: string) => btoa(`of ${value}.`).replace(/=+$/, "")],
    ["in base64 of a URL", (value: string) => btoa(value).replaceAll("+", "-").replace(/=+$/, "")],
  ])("has no header whose name contains the value %s", (_how, spelled) => {
    const value = "Key+0123'456~78>9";
    const mask = new Mask([secretOf({}, { value })]);
    const name = `x-${spelled(value).replace(">", "%3e")}`;
    const headers = mask.headers(new Headers({ [name]: "1", "x-kept": value, "content-length": "12" }));
    expect(Object.fromEntries(headers)).toEqual({
      "x-kept": "*".repeat(value.length),
      "content-length": "12",
    });
  });

  it("can be searched for a value of any length with a small part of a Worker's memory", () => {
    const value = Array.from({ length: 5000 }, (_, index) => hex(String((index * 7919) % 997)))
      .join("")
      .slice(0, 5000);
    const before = process.memoryUsage().arrayBuffers;
    expect(new Mask([secretOf({}, { value })]).text(`${value}.`)).toBe(`${"*".repeat(5000)}.`);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(40e6);
  });

  it("is passed on word by word, without waiting for its end", async () => {
    const lines = ["data: one\n", "\n", '{"two": 2}\r\n', "three\n"];
    expect(maskInPieces(lines.join(""), [bearer], [10, 1, 12, 6])).toEqual(lines);
    expect(maskInPieces("Hello world", [bearer], [9, 2])).toEqual(["Hello ", "world"]);
  });

  it("is searched only a few times, also in pieces of one byte and for a long value", async () => {
    const { next } = PatternAutomaton.prototype;
    let steps = 0;
    PatternAutomaton.prototype.next = function (...args) {
      steps++;
      return next.apply(this, args);
    };
    onTestFinished(() => void (PatternAutomaton.prototype.next = next));
    const [long, body] = [secretOf({}, { value: "0123456789".repeat(20) }), "a".repeat(6000)];
    expect(maskInPieces(body + long.value, [long], [1]).join("")).toBe(body + "*".repeat(200));
    expect(steps).toBeLessThan(10 * body.length);
  });

  it("does not reveal by the lengths of its pieces how much of a guessed value is right", async () => {
    const guess = VALUE.slice(0, -1);
    const pieces = async (text: string) => maskInPieces(text, [basic], [1]).map(({ length }) => length);
    for (let length = 0; length <= guess.length; length++) {
      const known = guess.slice(0, length);
      // The right part of the guess, in plain text and in base64.
      for (const text of [known, btoa(known).replace(/=+$/, "")]) {
        const wrongGuess = "!".repeat(text.length);
        expect(await pieces(`${text}\n${text} ${text}`)).toEqual(
          await pieces(`${wrongGuess}\n${wrongGuess} ${wrongGuess}`),
        );
        const long = "-".repeat(200);
        expect(await pieces(long + text)).toEqual(await pieces(long + wrongGuess));
      }
    }
  });
});

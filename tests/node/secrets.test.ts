/** How a request gets a secret, and how a response loses it: `src/shared/secrets.ts` and `src/shared/mask.ts`. */
import * as fc from "../setup/chance.ts";
import { describe, expect, it } from "vitest";
import { Mask } from "../../src/shared/mask.ts";
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

const inJSON = JSON.stringify(VALUE).slice(1, -1);

/** A text in base64, and the same with stars for each character that depends only on `secret`. */
function inBase64(before: string, secret: string, after: string): [string, string] {
  const encoded = btoa(before + secret + after);
  const first = Math.ceil((before.length * 8) / 6);
  const last = Math.floor(((before + secret).length * 8) / 6);
  return [encoded, encoded.slice(0, first) + "*".repeat(last - first) + encoded.slice(last)];
}

describe("a response", () => {
  it.each([
    ["as it is", VALUE],
    ["in a URL", encodeURIComponent(VALUE)],
    ["in a form", new URLSearchParams({ a: VALUE }).toString().slice(2)],
    ["in JSON", inJSON],
    ["in a path as Python writes it", PERCENT.replaceAll("%2F", "/")],
    ["in a URL in lower case", PERCENT.toLowerCase()],
    ["in JSON as PHP writes it", inJSON.replaceAll("/", "\\/")],
    ["in JSON as Go writes it", VALUE.replace(/[<>&"\\=+]/g, (one) => `\\u00${hex(one)}`)],
    ["in JSON in capitals", VALUE.replace(/\W/g, (one) => `\\u00${hex(one).toUpperCase()}`)],
    ["in base64", ...inBase64("", VALUE, "")],
    ["in base64 behind one byte", ...inBase64("a", VALUE, "xy")],
    ["in base64 behind two bytes", ...inBase64("ab", VALUE, "x")],
    ["in base64 behind three bytes", ...inBase64("abc", VALUE, "")],
    ["in base64 in a URL", encodeURIComponent(btoa(VALUE))],
    ["in what basic authentication sends", ...inBase64("", `user:${VALUE}`, "")],
  ])("is masked without a change of length if it contains the value %s", (_how, text, masked?: string) => {
    const body = (part: string) => `{"echo": "${part}",\n "more": 1}`;
    const expected = body(masked ?? "*".repeat(text.length));
    expect(new Mask([basic]).text(`é ${body(text)}`)).toBe(`é ${expected}`);
    // Only a part of a long word is held back.
    const word = "-".repeat(400);
    for (const [sent, shown] of [
      [body(text), expected],
      [word + text + word, word + (masked ?? "*".repeat(text.length)) + word],
    ] as const)
      for (let border = 1; border < sent.length; border++)
        expect(maskInPieces(sent, [basic], [border, 1000]).join("")).toBe(shown);
    expect(maskInPieces(body(text), [basic], [1]).join("")).toBe(expected);
  });

  it("is masked in any spelling and in pieces", () => {
    const schemes = [
      (one: string) => `%${hex(one)}`,
      (one: string) => `\\u00${hex(one)}`,
      (one: string) => (/["/\\]/.test(one) ? `\\${one}` : `\\u00${hex(one).toUpperCase()}`),
    ];
    const property = fc.property(
      fc.constantFrom(...schemes),
      fc.array(fc.boolean(), { minLength: VALUE.length, maxLength: VALUE.length }),
      fc.constantFrom("", "&", "%", "\\u00", "amp;", "s3", "\n", "\t"),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
      (escape, isEscaped, around, lengths) => {
        const spelled = (one: string, index: number) =>
          isEscaped[index] || one === "\\" ? escape(one) : one;
        const text = [...VALUE].map(spelled).join("");
        const masked = maskInPieces(around + text + around, [bearer], lengths).join("");
        expect(masked).toBe(around + "*".repeat(text.length) + around);
      },
    );
    fc.assert(property);
  });

  it.each([
    ["begins with a repetition", "AAAAAAAAAAAAAAAAAAAAAMLhe", "AA"],
    ["begins with repeated words", "abababababababababab!", "ab"],
    ["looks escaped", "100%25\\\\u0041%2Fabcdefg", "%"],
    [
      "has 5,000 characters",
      Array.from({ length: 5000 }, (_, index) => (((index * 7919) % 997) % 36).toString(36)).join(""),
      "",
    ],
  ])("is masked if the value %s", (_how, value, before) => {
    const mask = new Mask([secretOf({}, { value })]);
    for (const spelled of [
      value,
      encodeURIComponent(value),
      value.replace(/./g, (one) => `\\u00${hex(one)}`),
    ])
      expect(mask.text(`${before}${spelled}.`).slice(before.length)).toBe(`${"*".repeat(spelled.length)}.`);
  });

  it("is masked the same in pieces of any size", () => {
    const other = secretOf({}, { value: `${VALUE.slice(-6)}12345678` });
    // Only a part of a word of the last length is held back.
    const part = fc.constantFrom(
      VALUE,
      VALUE.slice(0, -1),
      VALUE.slice(1),
      other.value,
      "12345678",
      "s3",
      "",
      "ab".repeat(500),
    );
    const length = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4000 }));
    const property = fc.property(
      fc.array(part, { maxLength: 8 }),
      fc.array(length, { minLength: 1, maxLength: 5 }),
      (parts, lengths) => {
        const body = parts.join("");
        const masked = maskInPieces(body, [bearer, other], lengths).join("");
        expect(masked).toBe(new Mask([bearer, other]).text(body));
        for (const { value } of [bearer, other]) expect(masked).not.toContain(value);
      },
    );
    fc.assert(property);
  });

  it.each([
    ["as it is", (value: string) => value],
    ["in a URL", (value: string) => encodeURIComponent(value)],
    ["in a URL in all characters", (value: string) => value.replace(/./g, (one) => `%${hex(one)}`)],
    ["in base64", (value: string) => btoa(`of ${value}.`).replace(/=+$/, "")],
    ["in base64url", (value: string) => btoa(`of${value}`).replaceAll("+", "-").replace(/=+$/, "")],
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

  it("is passed on word by word, without waiting for its end", () => {
    const lines = ["data: one\n", "\n", '{"two": 2}\r\n', "three\n"];
    expect(maskInPieces(lines.join(""), [bearer], [10, 1, 12, 6])).toEqual(lines);
    expect(maskInPieces("Hello world", [bearer], [9, 2])).toEqual(["Hello ", "world"]);
  });
});

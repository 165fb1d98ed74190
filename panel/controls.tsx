import type { ComponentChildren, ComponentProps } from "preact";

/** Properties of inputs for names, paths and commands: a browser must not correct them. */
export const VERBATIM = { autocomplete: "off", autocapitalize: "none", spellcheck: false } as const;

/** A button without the accent color. */
export function PlainButton(props: ComponentProps<"button">) {
  return <button type="button" class="plain" {...props} />;
}

/** Names and values. Rows without a value are left out. */
export function Facts({ rows }: { rows: readonly (readonly [name: string, value: ComponentChildren])[] }) {
  return (
    <dl>
      {rows.map(
        ([name, value]) =>
          value !== undefined && (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
      )}
    </dl>
  );
}

interface SearchProps {
  label: string;
  /** The number of items in the searched list. */
  count: number;
  class?: string;
  /** Called with the text in lower case. */
  find: (text: string) => void;
}

export function SearchField({ label, count, find, class: name }: SearchProps) {
  return (
    <input
      type="search"
      class={name}
      aria-label={label}
      placeholder={`Find one of ${count.toLocaleString("en")}`}
      {...VERBATIM}
      onInput={(event) => find(event.currentTarget.value.trim().toLowerCase())}
    />
  );
}

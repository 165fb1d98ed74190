import type { ComponentChildren, ComponentProps } from "preact";

/** For names, paths and commands, which a browser must not correct. */
export const VERBATIM = { autocomplete: "off", autocapitalize: "none", spellcheck: false } as const;

export function PlainButton(props: ComponentProps<"button">) {
  return <button type="button" class="plain" {...props} />;
}

/** Leaves out rows without a value. */
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
  count: number;
  class?: string;
  /** The text is in lower case. */
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

import type { ComponentProps } from "preact";

/** For fields whose text a browser must not correct, such as names, paths and commands. */
export const VERBATIM = { autocomplete: "off", autocapitalize: "none", spellcheck: false } as const;

/** A button without the accent color. */
export function PlainButton(props: ComponentProps<"button">) {
  return <button type="button" class="plain" {...props} />;
}

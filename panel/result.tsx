/** The text and pictures of a tool's answer. Only characters that change the writing direction are replaced. */
import { escapeOrdering } from "./escape-ordering.ts";
import type { Block } from "./host.ts";

export function Result({ blocks }: { blocks: readonly Block[] }) {
  return (
    <>
      {blocks.map(({ type, text, data, mimeType }, index) =>
        type === "text" ? (
          <pre key={index} tabIndex={0}>
            {escapeOrdering(text ?? "")}
          </pre>
        ) : type === "image" && /^image\/(png|jpeg|gif|webp)$/.test(mimeType ?? "") ? (
          <img key={index} src={`data:${mimeType};base64,${data}`} alt={`Image ${index + 1}`} />
        ) : null,
      )}
    </>
  );
}

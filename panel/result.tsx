/** The text and pictures of a tool's answer, unchanged. */
import { plain } from "./plain.ts";
import type { Block } from "./host.ts";

export function Result({ blocks }: { blocks: readonly Block[] }) {
  return (
    <>
      {blocks.map(({ type, text, data, mimeType }, index) =>
        type === "text" ? (
          <pre key={index} tabIndex={0}>
            {plain(text ?? "")}
          </pre>
        ) : type === "image" && /^image\/(png|jpeg|gif|webp)$/.test(mimeType ?? "") ? (
          <img key={index} src={`data:${mimeType};base64,${data}`} alt={`Image ${index + 1}`} />
        ) : null,
      )}
    </>
  );
}

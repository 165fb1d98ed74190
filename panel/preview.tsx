/** A sandbox's web app, in a frame. The app has a different origin, so it cannot access the panel. */
import { useState } from "preact/hooks";
import { PlainButton } from "./controls.tsx";
import { NOTHING_IN_FRAME } from "./texts.ts";

export function PreviewFrame({ port, url }: { port: number; url: string }) {
  const [round, setRound] = useState(0);
  return (
    <section class="preview" aria-label={`Preview of port ${port}`}>
      <div class="together">
        <h3>Port {port}</h3>
        <PlainButton onClick={() => setRound(round + 1)}>Reload</PlainButton>
        <a class="button plain" href={url} target="_blank" rel="noopener noreferrer">
          Open in a tab
        </a>
      </div>
      <iframe
        key={round}
        src={url}
        title={`Port ${port} of the sandbox`}
        sandbox="allow-scripts allow-same-origin allow-forms allow-popups allow-modals allow-downloads"
        referrerpolicy="no-referrer"
      />
      <p class="soft">{NOTHING_IN_FRAME}</p>
    </section>
  );
}

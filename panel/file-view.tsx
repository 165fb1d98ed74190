/** One file: its text, picture or description. */
import { useEffect, useState } from "preact/hooks";
import { PlainButton, VERBATIM } from "./controls.tsx";
import { escapeOrdering } from "./escape-ordering.ts";
import { MAX_BYTES, read, write } from "./file.ts";
import { Download, Name } from "./file-parts.tsx";
import { host } from "./host.ts";
import { useOffered } from "./offered.ts";
import { Result } from "./result.tsx";
import { hrefOf } from "./route.ts";
import type { Block } from "./host.ts";
import { callTool, showError, ToolFailed } from "./tools.ts";
import { wholeText } from "../src/shared/text.ts";
import { LOADING, MIXED_LINE_ENDS, NAME_NOT_UTF8, NO_FILE, OVERWRITE, onlyFirst } from "./texts.ts";

type View =
  | { kind: "text"; text: string; newline: "\n" | "\r\n"; isNew?: true }
  | { kind: "missing" }
  /** Text that this page cannot write back unchanged: it is too long, or has line ends of several kinds. */
  | { kind: "fixed"; text: string; why: string }
  /** The content that `read_file` returns: a picture, or a description. */
  | { kind: "other"; blocks: Block[] };

const NEW: View = { kind: "text", text: "", newline: "\n", isNew: true };

/** The character that replaces bytes of a file name that are not UTF-8. No path can reach such a file. */
const NOT_UTF8 = "\ufffd";

/** Unsaved changes by sandbox and path, for when the file is opened again. */
const drafts = new Map<string, string>();

export function FileView({ sandbox, path, onSaved }: { sandbox: string; path: string; onSaved: () => void }) {
  const mayWrite = useOffered()("write_file");
  const key = `${sandbox} ${path}`;
  const [view, setView] = useState<View>();
  const [draft, setDraft] = useState(drafts.get(key));
  const [message, setMessage] = useState<{ text: string; isError: boolean }>();
  const [isBusy, setBusy] = useState(false);

  const showFailure = (error: unknown) => showError(error, (text) => setMessage({ text, isError: true }));
  useEffect(() => {
    const stop = new AbortController();
    const show = (found: View) => setView(found.kind === "missing" && draft !== undefined ? NEW : found);
    loadView(sandbox, path, stop.signal).then(show, (error: unknown) => {
      if (!stop.signal.aborted) showFailure(error);
    });
    return () => stop.abort();
  }, []);
  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    if (draft === undefined) return undefined;
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [draft === undefined]);

  const edit = (text: string | undefined) => {
    setDraft(text);
    if (text === undefined) drafts.delete(key);
    else drafts.set(key, text);
  };
  const save = async () => {
    if (view?.kind !== "text") return;
    const text = draft ?? view.text;
    setBusy(true);
    try {
      const now = await loadView(sandbox, path);
      const isSame = view.isNew ? now.kind === "missing" : now.kind === "text" && now.text === view.text;
      if (!isSame && !(await host().confirm(OVERWRITE))) return;
      await write(sandbox, path, text.replaceAll("\n", view.newline));
      setView({ kind: "text", text, newline: view.newline });
      edit(undefined);
      setMessage({ text: "Saved.", isError: false });
      onSaved();
    } catch (error) {
      showFailure(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="run" aria-label="Selected file">
      <h2>
        <Name name={path} />
      </h2>
      <div class="together">
        {view && view.kind !== "missing" && !("isNew" in view) && (
          <Download sandbox={sandbox} path={path} label="Download" showFailure={showFailure} />
        )}
        {view?.kind === "text" && mayWrite && (
          <button type="button" disabled={isBusy || (draft === undefined && !view.isNew)} onClick={save}>
            Save
          </button>
        )}
        {view?.kind === "missing" && mayWrite && !path.includes(NOT_UTF8) && (
          <button type="button" onClick={() => setView(NEW)}>
            Create file
          </button>
        )}
        {draft !== undefined && <PlainButton onClick={() => edit(undefined)}>Undo changes</PlainButton>}
        <a class="button plain" href={hrefOf(sandbox, "files")}>
          Close
        </a>
      </div>
      <div role="status">
        {message && <p class={message.isError ? "note error" : "note"}>{message.text}</p>}
      </div>
      {view === undefined && !message && <p class="soft">{LOADING}</p>}
      {view?.kind === "missing" && <p>{path.includes(NOT_UTF8) ? NAME_NOT_UTF8 : NO_FILE}</p>}
      {view?.kind === "text" && (
        <textarea
          class="content"
          aria-label="File content"
          rows={16}
          readOnly={!mayWrite}
          {...VERBATIM}
          value={draft ?? view.text}
          onInput={({ currentTarget: { value } }) => edit(value === view.text ? undefined : value)}
        />
      )}
      {view?.kind === "fixed" && (
        <>
          <p class="soft">{view.why}</p>
          <pre tabIndex={0}>{escapeOrdering(view.text)}</pre>
        </>
      )}
      {view?.kind === "other" && <Result blocks={view.blocks} />}
    </section>
  );
}

async function loadView(sandbox: string, path: string, signal?: AbortSignal): Promise<View> {
  let file;
  try {
    file = await read(sandbox, path, signal);
  } catch (error) {
    if (error instanceof ToolFailed && error.code === "not_found") return { kind: "missing" };
    throw error;
  }
  const text = wholeText(file.bytes, file.isCut ? "end" : "none")?.text;
  if (text === undefined) {
    const { content } = await callTool("read_file", { sandbox, path }, signal);
    return { kind: "other", blocks: content };
  }
  if (file.isCut) return { kind: "fixed", text, why: onlyFirst(MAX_BYTES) };
  const unix = text.replaceAll("\r\n", "\n");
  if (unix.includes("\r") || (unix !== text && /[^\r]\n|^\n/.test(text)))
    return { kind: "fixed", text, why: MIXED_LINE_ENDS };
  return { kind: "text", text: unix, newline: unix === text ? "\n" : "\r\n" };
}

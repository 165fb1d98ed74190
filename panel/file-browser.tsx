/** A sandbox's files: a tree, an open file, uploads and downloads. */
import { useEffect, useRef, useState } from "preact/hooks";
import { PlainButton, SearchField, VERBATIM } from "./controls.tsx";
import { FileView } from "./file-view.tsx";
import { Download, Name } from "./file-parts.tsx";
import { type Entries, type Entry, list, upload } from "./file.ts";
import { size } from "./format.ts";
import { host } from "./host.ts";
import { useOffered } from "./offered.ts";
import { hrefOf } from "./route.ts";
import { showError, ToolFailed } from "./tools.ts";
import { WindowedList } from "./windowed.tsx";
import * as texts from "./texts.ts";

/** How many directories are shown at first, and how many more each press of the button shows. Only visible files are rendered. */
const SHOWN_DIRECTORIES = 200;

/** From this many entries on, a directory has a search field. */
const SEARCH_FROM_ENTRIES = 100;

const HOME = "/workspace";

interface Tree {
  sandbox: string;
  open: string;
  /** A number that changes when directories must be loaded again. */
  version: number;
  /** Called with files dropped on a directory. Does nothing if uploads are not allowed. */
  send: (directory: string, files: Iterable<File>) => void;
  showFailure: (error: unknown) => void;
}

export function FileBrowser({ sandbox, open }: { sandbox: string; open: string }) {
  const [version, setVersion] = useState(0);
  const [message, setMessage] = useState<{ text: string; isError: boolean }>();
  const [sending, setSending] = useState<{ name: string; part: number }>();
  const stop = useRef(new AbortController());
  const directory = useRef<HTMLInputElement>(null);

  const isOffered = useOffered();
  // The server gives upload links only to callers who may write.
  const maySend = host().canReachServer && isOffered("file_link") && isOffered("write_file");

  const showFailure = (error: unknown) => showError(error, (text) => setMessage({ text, isError: true }));
  const reload = () => setVersion((before) => before + 1);
  const send = async (to: string, given: Iterable<File>) => {
    const files = [...given];
    if (!maySend || files.length === 0) return;
    const names: string[] = [];
    const { signal } = (stop.current = new AbortController());
    try {
      const existing = await namesIn(sandbox, to, signal);
      const taken = files.map(({ name }) => name).filter((name) => existing.has(name));
      const question = `${to} already has ${taken.join(", ")}. Overwrite ${taken.length === 1 ? "it" : "them"}?`;
      if (taken.length > 0 && !(await host().confirm(question))) return;
      for (const file of files) {
        const { name } = file;
        setSending({ name, part: 0 });
        await upload(sandbox, join(to, name), file, (part) => setSending({ name, part }), signal);
        names.push(name);
      }
      if (names.length > 0) setMessage({ text: texts.uploadedText(to, names), isError: false });
    } catch (error) {
      showFailure(error);
    } finally {
      setSending(undefined);
      reload();
    }
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    void send(directory.current?.value || HOME, event.dataTransfer?.files ?? []);
  };
  useEffect(() => {
    // If a file is dropped outside the target, the browser would replace the page with the file.
    const ignoreDrop = (event: Event) => event.preventDefault();
    addEventListener("dragover", ignoreDrop);
    addEventListener("drop", ignoreDrop);
    return () => {
      removeEventListener("dragover", ignoreDrop);
      removeEventListener("drop", ignoreDrop);
    };
  }, []);
  const tree: Tree = { sandbox, open, version, send, showFailure };
  return (
    <div class="files" onDragOver={(event) => event.preventDefault()} onDrop={drop}>
      <div role="status">
        {message && (
          <p class={message.isError ? "note error" : "note"}>
            <bdi>{message.text}</bdi>
          </p>
        )}
      </div>
      {open !== "" && <FileView key={open} sandbox={sandbox} path={open} onSaved={reload} />}
      <div class="together">
        <h2>Files</h2>
        <PlainButton onClick={reload}>Refresh</PlainButton>
      </div>
      <ul class="tree">
        <Directory tree={tree} path={HOME} name={HOME} isOpenAtFirst />
        <Directory tree={tree} path="/" name="/" />
      </ul>
      {maySend && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const form = event.currentTarget as HTMLFormElement;
            const { files } = form.elements.namedItem("files") as HTMLInputElement;
            void send(directory.current?.value || HOME, [...(files ?? [])]).then(() => form.reset());
          }}
        >
          <h2>Upload files</h2>
          <p class="soft">{texts.DROP_FILES}</p>
          <label for="to">Directory</label>
          <input id="to" name="to" ref={directory} defaultValue={HOME} {...VERBATIM} />
          <div class="together">
            <input type="file" name="files" multiple required aria-label="Files to upload" />
            <button disabled={sending !== undefined}>Upload</button>
          </div>
          {sending && (
            <p role="status">
              <progress value={sending.part} aria-label="Uploaded so far" /> <bdi>{sending.name}</bdi>{" "}
              <PlainButton onClick={() => stop.current.abort()}>Stop</PlainButton>
            </p>
          )}
        </form>
      )}
      {isOffered("write_file") && <NewFile sandbox={sandbox} />}
    </div>
  );
}

function NewFile({ sandbox }: { sandbox: string }) {
  const begin = (event: SubmitEvent) => {
    event.preventDefault();
    const path = String(new FormData(event.currentTarget as HTMLFormElement).get("path"));
    host().go(hrefOf(sandbox, "files", join(HOME, path)));
  };
  return (
    <form onSubmit={begin}>
      <label for="path">Open a path, or create a file there</label>
      <div class="together">
        <input id="path" name="path" required placeholder="notes.txt" {...VERBATIM} />
        <button class="plain">Open</button>
      </div>
    </form>
  );
}

function Directory({
  tree,
  path,
  name,
  isOpenAtFirst = false,
}: {
  tree: Tree;
  path: string;
  name: string;
  isOpenAtFirst?: boolean;
}) {
  const { sandbox, version, send, showFailure } = tree;
  const [isOpen, setOpen] = useState(isOpenAtFirst);
  const [isOver, setOver] = useState(false);
  const [listed, setListed] = useState<Entries>();
  const [count, setCount] = useState(SHOWN_DIRECTORIES);
  useEffect(() => {
    if (!isOpen) return undefined;
    const stop = new AbortController();
    list(sandbox, path, stop.signal).then(setListed, (error: unknown) => {
      if (!stop.signal.aborted) showFailure(error);
    });
    return () => stop.abort();
  }, [isOpen, version, path]);
  const [wanted, setWanted] = useState("");
  const entries = listed?.entries ?? [];
  const matches = entries.filter((entry) => entry.path.toLowerCase().includes(wanted));
  const directories = matches.filter(({ type }) => type === "directory");
  const files = matches.filter(({ type }) => type !== "directory");
  return (
    <li>
      <details open={isOpenAtFirst} onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
        <summary
          class={isOver ? "over" : ""}
          onDragOver={(event) => (event.preventDefault(), setOver(true))}
          onDragLeave={() => setOver(false)}
          onDrop={(event) => {
            event.preventDefault();
            event.stopPropagation();
            setOver(false);
            send(path, event.dataTransfer?.files ?? []);
          }}
        >
          <Name name={name} />
        </summary>
        {!listed && <p class="soft">{texts.LOADING}</p>}
        {entries.length > SEARCH_FROM_ENTRIES && (
          <SearchField class="find" label={`Find in ${name}`} count={entries.length} find={setWanted} />
        )}
        {listed && matches.length === 0 && (
          <p class="soft">{entries.length === 0 ? texts.EMPTY_DIRECTORY : texts.NO_NAME_FOUND}</p>
        )}
        {directories.length > 0 && (
          <ul>
            {directories.slice(0, count).map((entry) => (
              <Directory key={entry.path} tree={tree} path={join(path, entry.path)} name={entry.path} />
            ))}
          </ul>
        )}
        {directories.length > count && (
          <PlainButton onClick={() => setCount(count + SHOWN_DIRECTORIES)}>
            {Math.min(SHOWN_DIRECTORIES, directories.length - count)} more of {directories.length} directories
          </PlainButton>
        )}
        {files.length > 0 && (
          <WindowedList
            items={files}
            keyOf={(entry) => entry.path}
            row={(entry) => <File tree={tree} path={join(path, entry.path)} entry={entry} />}
          />
        )}
        {listed?.more && <p class="soft">{texts.onlyFirstEntries(entries.length)}</p>}
        {listed && (
          <Download sandbox={sandbox} path={path} label="Download as .tar.gz" showFailure={showFailure} />
        )}
      </details>
    </li>
  );
}

function File({ tree, path, entry }: { tree: Tree; path: string; entry: Entry }) {
  return (
    <div class="entry">
      <a href={hrefOf(tree.sandbox, "files", path)} aria-current={path === tree.open ? "true" : undefined}>
        <Name name={entry.path} />
      </a>
      <span class="soft">{entry.type === "file" ? size(entry.size) : entry.type}</span>
    </div>
  );
}

/** The names in a directory; empty if it does not exist yet. */
async function namesIn(sandbox: string, path: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  try {
    return new Set((await list(sandbox, path, signal)).entries.map((entry) => entry.path));
  } catch (error) {
    if (error instanceof ToolFailed && error.code === "not_found") return new Set();
    throw error;
  }
}

function join(directory: string, path: string): string {
  if (path.startsWith("/")) return path;
  return `${directory.replace(/\/+$/, "")}/${path}`;
}

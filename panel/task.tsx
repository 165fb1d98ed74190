/** An agent's task, or a question: its progress, changes, results and costs. */
import { useRef, useState } from "preact/hooks";
import { Facts, PlainButton } from "./controls.tsx";
import { stepOf } from "../src/shared/task-steps.ts";
import { Name } from "./file-parts.tsx";
import type { ToolOutputs } from "../client/tool-types.ts";
import type { FollowedRun, RunDetails } from "./use-run.ts";
import { share, size } from "./format.ts";
import { type Block, host } from "./host.ts";
import { useFollowEnd } from "./follow-end.ts";
import type { OutputLog } from "./output-log.ts";
import { LogView } from "./log-view.tsx";
import { escapeOrdering } from "./escape-ordering.ts";
import { Result } from "./result.tsx";
import { type ToolResult, callTool, ToolFailed } from "./tools.ts";
import { useAction } from "./use-action.ts";
import { moreChanges, NO_ARTIFACT_LINK, NO_CHANGES, NO_STEPS, NO_STEPS_YET, notKeptText } from "./texts.ts";

/** The result of `get_result` for a task, or for a question, which has a program. */
interface Fields extends Partial<Omit<ToolOutputs["execute_task"], "tokens">> {
  tokens?: { input: number; output: number; cache_read?: number; cache_write?: number };
  code?: string;
  language?: string;
}

export function Task({ id, followed, details }: { id: string; followed: FollowedRun; details: RunDetails }) {
  const { state, log, version, bytes } = followed;
  const fields: Fields = details.fields ?? {};
  const pictures = details.content.filter(({ type }) => type === "image");
  const { answer, note, code, language, files, diff, artifacts = [], not_kept: notKept } = fields;
  const isQuestion = code !== undefined;
  const isOver = state !== undefined && state !== "running";
  return (
    <div class="task">
      {note && <p class="note">{escapeOrdering(note)}</p>}
      {answer !== undefined && (
        <>
          <h3>Answer</h3>
          <pre class="answer" tabIndex={0}>
            {escapeOrdering(answer)}
          </pre>
        </>
      )}
      {isQuestion && (
        <>
          <h3>Program {language && <span class="soft">{language}</span>}</h3>
          <pre tabIndex={0}>{escapeOrdering(code)}</pre>
        </>
      )}
      <h3>{isQuestion ? "Output" : "Steps"}</h3>
      {bytes === 0 ? (
        <p class="soft">{isOver ? NO_STEPS : NO_STEPS_YET}</p>
      ) : isQuestion ? (
        <LogView log={log} version={version} label="Output" />
      ) : (
        <Steps log={log} version={version} />
      )}
      {isQuestion && isOver && pictures.length > 0 && <Result blocks={pictures} />}
      {files && (
        <>
          <h3>Changes</h3>
          {files.length === 0 ? (
            <p class="soft">{NO_CHANGES}</p>
          ) : (
            <ul class="changes">
              {files.map(({ path, change, size: bytesOf }) => (
                <li key={path}>
                  <span class={`change ${change}`}>{change}</span> <Name name={path} />{" "}
                  <span class="soft">{change !== "deleted" && size(bytesOf)}</span>
                </li>
              ))}
            </ul>
          )}
          {(fields.files_changed ?? 0) > files.length && (
            <p class="soft">{moreChanges((fields.files_changed ?? 0) - files.length)}</p>
          )}
          {diff && <Diff text={diff} />}
        </>
      )}
      {artifacts.length > 0 && (
        <>
          <h3>Kept files</h3>
          <ul class="changes">
            {artifacts.map(({ path, size: bytesOf }) => (
              <Artifact key={path} id={id} path={path} bytes={bytesOf} />
            ))}
          </ul>
        </>
      )}
      {notKept && (
        <p class="soft">
          {notKeptText(
            share(notKept.named.length, notKept.count),
            notKept.named.map(({ path, why }, index) => (
              <span key={path}>
                {index > 0 && ", "}
                <Name name={path} /> ({escapeOrdering(why)})
              </span>
            )),
          )}
        </p>
      )}
      <Usage fields={fields} />
    </div>
  );
}

/** How many steps are shown at first, and how many more each press of the button shows. */
const SHOWN_STEPS = 100;

function Steps({ log, version }: { log: OutputLog; version: number }) {
  const [count, setCount] = useState(SHOWN_STEPS);
  const list = useRef<HTMLOListElement>(null);
  const onScroll = useFollowEnd(list, [version]);
  const lines = log.lines().filter(({ length }) => length > 0);
  const shown = lines.slice(-count).map(({ spans }) => spans.map(({ text }) => text).join(""));
  const from = lines.length - shown.length;
  return (
    <>
      {from > 0 && (
        <PlainButton onClick={() => setCount(count + SHOWN_STEPS)}>
          {Math.min(SHOWN_STEPS, from)} earlier steps of {from}
        </PlainButton>
      )}
      <ol class="steps" ref={list} start={from + 1} aria-label="Steps" tabIndex={0} onScroll={onScroll}>
        {shown.map((line, index) => {
          const { kind, tool, text, isNested } = stepOf(line);
          return (
            <li key={from + index} class={kind} data-depth={isNested ? "1" : undefined}>
              {tool && <b>{tool}</b>} <bdi>{text}</bdi>
            </li>
          );
        })}
      </ol>
    </>
  );
}

interface ArtifactData {
  /** The text, or the part of it that fits into one answer. */
  content?: string;
  /** Where the text continues; undefined at the end. */
  next_cursor?: number;
  url?: string;
}

const KINDS: Readonly<Record<string, string>> = { "@": "place", "+": "added", "-": "removed" };

/** The kind of each line. An added line may look like a file header. Only lines before a file's first hunk are headers. */
function kindsOf(lines: readonly string[]): (string | undefined)[] {
  let isHead = true;
  return lines.map((line) => {
    if (line.startsWith("diff ")) isHead = true;
    else if (line.startsWith("@@")) isHead = false;
    return isHead ? (/^(?:diff|---|\+\+\+) /.test(line) ? "file" : undefined) : KINDS[line.slice(0, 1)];
  });
}

/** A diff. Additions and removals have signs, not only colors. */
function Diff({ text }: { text: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  const kinds = kindsOf(lines);
  return (
    <pre class="diff" tabIndex={0} aria-label="Diff">
      {lines.map((line, index) => (
        <span key={index} class={kinds[index]}>
          {escapeOrdering(line)}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

function Artifact({ id, path, bytes }: { id: string; path: string; bytes: number }) {
  const [blocks, setBlocks] = useState<readonly Block[]>();
  const { problem, act } = useAction();
  const callFor = (use: (answer: ToolResult<ArtifactData>) => unknown) =>
    act(async () => use(await callTool<ArtifactData>("get_result", { id, artifact: path })));
  return (
    <li>
      <Name name={path} /> <span class="soft">{size(bytes)}</span>{" "}
      <PlainButton
        aria-expanded={blocks !== undefined}
        aria-label={`${blocks ? "Hide" : "View"}: ${path}`}
        onClick={() =>
          blocks ? setBlocks(undefined) : void callFor((answer) => setBlocks(blocksOf(answer)))
        }
      >
        {blocks ? "Hide" : "View"}
      </PlainButton>{" "}
      {host().canReachServer && (
        <PlainButton
          aria-label={`Download: ${path}`}
          onClick={() => void callFor(({ data }) => save(data, path))}
        >
          Download
        </PlainButton>
      )}
      <span role="alert">{problem}</span>
      {blocks && <Result blocks={blocks} />}
    </li>
  );
}

/** An artifact's content, without hints for models. */
function blocksOf({ data, content }: ToolResult<ArtifactData>): readonly Block[] {
  const isWhole = data.content !== undefined && data.next_cursor === undefined;
  return isWhole ? [{ type: "text", text: data.content }] : content;
}

/** Saves an artifact by its link, or its complete text. @throws {ToolFailed} */
async function save({ url, content, next_cursor }: ArtifactData, path: string): Promise<void> {
  if (url !== undefined) return host().download(url);
  if (content === undefined || next_cursor !== undefined) throw new ToolFailed(NO_ARTIFACT_LINK);
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(new Blob([content]));
  anchor.download = path.split("/").at(-1) ?? "";
  anchor.click();
  URL.revokeObjectURL(anchor.href);
}

function Usage({ fields: { agent, model, turns, tokens, cost_usd: cost, directory } }: { fields: Fields }) {
  const input = tokens && tokens.input + (tokens.cache_read ?? 0) + (tokens.cache_write ?? 0);
  const rows: [string, string | undefined][] = [
    ["Agent", agent],
    ["Model", model],
    ["Turns", turns?.toLocaleString("en")],
    [
      "Tokens",
      tokens && `${input?.toLocaleString("en")} read, ${tokens.output.toLocaleString("en")} written`,
    ],
    ["Cost", cost === undefined ? undefined : `$${cost.toFixed(4)}`],
    ["Works in", directory],
  ];
  const known = rows.flatMap(([name, value]) =>
    value === undefined ? [] : [[name, escapeOrdering(value)] as const],
  );
  if (known.length === 0) return null;
  return (
    <>
      <h3>Usage</h3>
      <Facts rows={known} />
    </>
  );
}

/** What a sandbox is like: its state, what it has saved, its ports, its network, its checkpoints. */
import { useState } from "preact/hooks";
import { size, time } from "./format.ts";
import { host } from "./host.ts";
import type { ListedCheckpoint, ListedSandbox, SandboxListing } from "../src/shared/sandbox-listing.ts";
import { useOffered } from "./offered.ts";
import { plain } from "./plain.ts";
import { wordsOf } from "./poll.ts";
import { callTool } from "./tools.ts";

interface Shown {
  name: string;
  /** Undefined as long as it does not exist. */
  sandbox: ListedSandbox | undefined;
  listing: SandboxListing;
  refresh: () => void;
}

/** Does something and says how it went. */
function useAction(refresh: () => void) {
  const [said, setSaid] = useState<{ text: string; isError: boolean }>();
  const [isBusy, setBusy] = useState(false);
  const act = async (work: () => Promise<string>) => {
    setBusy(true);
    setSaid(undefined);
    try {
      setSaid({ text: await work(), isError: false });
      refresh();
    } catch (error) {
      setSaid({ text: wordsOf(error), isError: true });
    } finally {
      setBusy(false);
    }
  };
  return { said, isBusy, act };
}

/** Calls a tool. @returns these words; what a tool's text says is for models */
async function done(words: string, tool: string, args: Record<string, unknown>): Promise<string> {
  await callTool(tool, args);
  return words;
}

export function About({ name, sandbox, listing, refresh }: Shown) {
  const isOffered = useOffered();
  const { said, isBusy, act } = useAction(refresh);
  const checkpoints = listing.checkpoints.filter((checkpoint) => checkpoint.sandbox === name);
  const rows: [string, string | undefined][] = sandbox
    ? [
        ["State", sandbox.state],
        ["Made", time(sandbox.created_at)],
        ["Last used", time(sandbox.last_used_at)],
        ["Size", sandbox.size_bytes === undefined ? undefined : size(sandbox.size_bytes)],
        ["Saved", sandbox.saved_at && `${time(sandbox.saved_at)}, ${size(sandbox.saved_bytes ?? 0)}`],
        ["Variables", sandbox.variables.join(", ") || undefined],
        ["Internet", networkWords(sandbox)],
      ]
    : [];
  const destroy = async () => {
    const question = `Destroy the sandbox ${name}, with every file and program in it? Its checkpoints stay.`;
    if (await host().confirm(question))
      await act(() => done(`${name} is destroyed.`, "destroy_sandbox", { sandbox: name }));
  };
  return (
    <>
      <div role="status">{said?.text && <p class={said.isError ? "note error" : "note"}>{said.text}</p>}</div>
      {sandbox && (
        <>
          <dl>
            {rows.map(
              ([term, value]) =>
                value && (
                  <div key={term}>
                    <dt>{term}</dt>
                    <dd>{value}</dd>
                  </div>
                ),
            )}
          </dl>
          <Ports sandbox={sandbox} isBusy={isBusy} act={act} />
        </>
      )}
      <Checkpoints
        name={name}
        checkpoints={checkpoints}
        canSave={sandbox !== undefined && isOffered("checkpoint_sandbox")}
        canRestore={isOffered("restore_sandbox")}
        isBusy={isBusy}
        act={act}
      />
      {sandbox && isOffered("destroy_sandbox") && (
        <>
          <h2>End it</h2>
          <button type="button" class="plain danger" disabled={isBusy} onClick={destroy}>
            Destroy this sandbox
          </button>
        </>
      )}
    </>
  );
}

/** What a sandbox reaches, for people. */
function networkWords({ internet, allow_hosts: hosts = [] }: ListedSandbox): string | undefined {
  if (internet === undefined) return undefined;
  if (internet === "none") return "none";
  return internet === "full" ? "all of it" : `${hosts.join(", ") || "no host"}, and nothing else`;
}

interface Acting {
  isBusy: boolean;
  act: (work: () => Promise<string>) => Promise<void>;
}

function Ports({ sandbox: { name, previews }, isBusy, act }: Acting & { sandbox: ListedSandbox }) {
  const isOffered = useOffered();
  const mayExpose = isOffered("expose_port");
  const expose = (event: SubmitEvent) => {
    event.preventDefault();
    const port = Number(new FormData(event.currentTarget as HTMLFormElement).get("port"));
    void act(() => done(`Port ${port} has an address now.`, "expose_port", { sandbox: name, port }));
  };
  return (
    <>
      <h2>Ports</h2>
      {previews.length > 0 && (
        <ul class="rows-list">
          {previews.map(({ port, url, expires_at }) => (
            <li key={port}>
              {url ? (
                <a href={url} target="_blank" rel="noopener noreferrer">
                  Port {port}
                </a>
              ) : (
                `Port ${port}`
              )}{" "}
              <span class="soft">until {time(expires_at)}</span>
              {mayExpose && (
                <button
                  type="button"
                  class="plain"
                  disabled={isBusy}
                  aria-label={`Close port ${port}`}
                  onClick={() =>
                    act(() =>
                      done(`Port ${port} is closed.`, "expose_port", { sandbox: name, port, expose: false }),
                    )
                  }
                >
                  Close
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
      {mayExpose && (
        <form onSubmit={expose}>
          <label for="port">Give a program that listens on a port an address, for an hour</label>
          <div class="together">
            <input id="port" name="port" type="number" min={1024} max={65535} required placeholder="8000" />
            <button class="plain" disabled={isBusy}>
              Expose
            </button>
          </div>
        </form>
      )}
      {!mayExpose && previews.length === 0 && <p class="soft">None is exposed.</p>}
    </>
  );
}

interface Keeping extends Acting {
  name: string;
  checkpoints: ListedCheckpoint[];
  /** Whether there is a state to keep. */
  canSave: boolean;
  canRestore: boolean;
}

function Checkpoints({ name, checkpoints, canSave, canRestore, isBusy, act }: Keeping) {
  const keep = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const label = String(new FormData(form).get("label"));
    void act(async () => {
      const args = { sandbox: name, ...(label && { label }) };
      const words = await done("Its /workspace is kept as it is now.", "checkpoint_sandbox", args);
      form.reset();
      return words;
    });
  };
  const restore = async ({ id, saved_at }: ListedCheckpoint) => {
    const question = `Put ${name} back to ${time(saved_at)}? What runs there ends. Its state now becomes a checkpoint.`;
    if (await host().confirm(question))
      await act(async () => {
        // What became of its state before is in the text alone.
        const { content } = await callTool("restore_sandbox", { sandbox: name, checkpoint: id });
        return content.map(({ text }) => text ?? "").join("\n");
      });
  };
  return (
    <>
      <h2>Checkpoints</h2>
      {checkpoints.length > 0 && (
        <ul class="rows-list">
          {checkpoints.map((checkpoint) => (
            <li key={checkpoint.id}>
              <bdi>{plain(checkpoint.label || "Checkpoint")}</bdi>{" "}
              <span class="soft">
                {time(checkpoint.saved_at)}, {size(checkpoint.bytes)}
              </span>
              {canRestore && (
                <button
                  type="button"
                  class="plain"
                  disabled={isBusy}
                  aria-label={`Restore ${checkpoint.label || "the checkpoint"} of ${time(checkpoint.saved_at)}`}
                  onClick={() => restore(checkpoint)}
                >
                  Restore
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
      {canSave && (
        <form onSubmit={keep}>
          <label for="label">Keep /workspace as it is now</label>
          <div class="together">
            <input id="label" name="label" maxLength={100} placeholder="A name for it" autocomplete="off" />
            <button class="plain" disabled={isBusy}>
              Keep
            </button>
          </div>
        </form>
      )}
      {checkpoints.length === 0 && !canSave && <p class="soft">There are none.</p>}
    </>
  );
}

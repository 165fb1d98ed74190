/** A sandbox's page: its state, saved data, ports, network and checkpoints. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Facts, PlainButton } from "./controls.tsx";
import { size } from "./format.ts";
import { host } from "./host.ts";
import type { ListedCheckpoint, ListedSandbox, SandboxListing } from "../src/shared/sandbox-listing.ts";
import { useOffered } from "./offered.ts";
import { escapeOrdering } from "./escape-ordering.ts";
import { refresh } from "./poll.ts";
import { exactTime, Time } from "./time.tsx";
import { callTool } from "./tools.ts";
import { useAction } from "./use-action.ts";
import * as texts from "./texts.ts";

interface AboutProps {
  name: string;
  sandbox: ListedSandbox | undefined;
  listing: SandboxListing;
}

/** Calls a tool. @returns `words` for the user, because the tool's own text is for models */
async function callWithOutcome(words: string, tool: string, args: Record<string, unknown>): Promise<string> {
  await callTool(tool, args);
  return words;
}

export function About({ name, sandbox, listing }: AboutProps) {
  const isOffered = useOffered();
  const { problem, isBusy, act: tryTo } = useAction();
  const [outcome, setOutcome] = useState<string>();
  const act = (work: () => Promise<string>) =>
    tryTo(async () => {
      setOutcome(undefined);
      setOutcome(await work());
      refresh();
    });
  const checkpoints = listing.checkpoints.filter((checkpoint) => checkpoint.sandbox === name);
  // A stopped sandbox has the size 0, and its saved size in the next row.
  const isSized = sandbox?.state === "running" && sandbox.size_bytes !== undefined;
  const rows: [string, ComponentChildren][] = sandbox
    ? [
        ["State", sandbox.state],
        ["Created", <Time iso={sandbox.created_at} />],
        ["Last used", <Time iso={sandbox.last_used_at} />],
        ["Size", isSized ? size(sandbox.size_bytes ?? 0) : undefined],
        [
          "Saved",
          sandbox.saved_at && (
            <>
              <Time iso={sandbox.saved_at} />, {size(sandbox.saved_bytes ?? 0)}
            </>
          ),
        ],
        ["Variables", sandbox.variables?.join(", ") || undefined],
        ["Internet access", describeNetwork(sandbox)],
      ]
    : [];
  const destroy = async () => {
    if (await host().confirm(texts.deleteQuestion(name)))
      await act(() => callWithOutcome(texts.deletedText(name), "destroy_sandbox", { sandbox: name }));
  };
  return (
    <>
      <div role="status">
        {problem && <p class="note error">{problem}</p>}
        {outcome && <p class="note">{outcome}</p>}
      </div>
      {sandbox && (
        <>
          <Facts rows={rows} />
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
          <h2>Danger zone</h2>
          <button type="button" class="plain danger" disabled={isBusy} onClick={destroy}>
            Delete sandbox
          </button>
        </>
      )}
    </>
  );
}

function describeNetwork({ internet, allow_hosts: hosts = [] }: ListedSandbox): string | undefined {
  if (internet === undefined) return undefined;
  if (internet === "none") return "blocked";
  return internet === "full" ? "unrestricted" : `only ${hosts.join(", ") || "no host"}`;
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
    void act(() => callWithOutcome(texts.portText(port, true), "expose_port", { sandbox: name, port }));
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
                  Open port {port}
                </a>
              ) : (
                `Port ${port}`
              )}{" "}
              <span class="soft">
                expires <Time iso={expires_at} />
              </span>
              {mayExpose && (
                <PlainButton
                  disabled={isBusy}
                  aria-label={`Close port ${port}`}
                  onClick={() =>
                    act(() =>
                      callWithOutcome(texts.portText(port, false), "expose_port", {
                        sandbox: name,
                        port,
                        expose: false,
                      }),
                    )
                  }
                >
                  Close
                </PlainButton>
              )}
            </li>
          ))}
        </ul>
      )}
      {mayExpose && (
        <form onSubmit={expose}>
          <label for="port">{texts.PORT_LABEL}</label>
          <div class="together">
            <input id="port" name="port" type="number" min={1024} max={65535} required placeholder="8000" />
            <button class="plain" disabled={isBusy}>
              Expose port
            </button>
          </div>
        </form>
      )}
      {!mayExpose && previews.length === 0 && <p class="soft">{texts.NO_PORTS}</p>}
    </>
  );
}

interface CheckpointProps extends Acting {
  name: string;
  checkpoints: ListedCheckpoint[];
  canSave: boolean;
  canRestore: boolean;
}

function Checkpoints({ name, checkpoints, canSave, canRestore, isBusy, act }: CheckpointProps) {
  const keep = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const label = String(new FormData(form).get("label"));
    void act(async () => {
      const args = { sandbox: name, ...(label && { label }) };
      const words = await callWithOutcome(texts.CHECKPOINT_SAVED, "checkpoint_sandbox", args);
      form.reset();
      return words;
    });
  };
  const restore = async ({ id, saved_at }: ListedCheckpoint) => {
    if (await host().confirm(texts.restoreQuestion(name, exactTime(saved_at))))
      await act(async () => {
        // Shows the tool's text, because only this text names the checkpoint of the replaced state.
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
              <bdi>{escapeOrdering(checkpoint.label || "Checkpoint")}</bdi>{" "}
              <span class="soft">
                <Time iso={checkpoint.saved_at} />, {size(checkpoint.bytes)}
              </span>
              {canRestore && (
                <PlainButton
                  disabled={isBusy}
                  aria-label={`Restore ${checkpoint.label || "the checkpoint"} of ${exactTime(checkpoint.saved_at)}`}
                  onClick={() => restore(checkpoint)}
                >
                  Restore
                </PlainButton>
              )}
            </li>
          ))}
        </ul>
      )}
      {canSave && (
        <form onSubmit={keep}>
          <label for="label">Save the sandbox's files as a checkpoint</label>
          <div class="together">
            <input id="label" name="label" maxLength={100} placeholder="Name (optional)" autocomplete="off" />
            <button class="plain" disabled={isBusy}>
              Save checkpoint
            </button>
          </div>
        </form>
      )}
      {checkpoints.length === 0 && !canSave && <p class="soft">{texts.NO_CHECKPOINTS}</p>}
    </>
  );
}

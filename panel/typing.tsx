/** Types into a command that runs in a terminal. */
import { VERBATIM } from "./controls.tsx";
import { callTool } from "./tools.ts";
import { useAction } from "./use-action.ts";

const KEYS: [name: string, text: string][] = [
  ["Ctrl+C", "\u0003"],
  ["Ctrl+D", "\u0004"],
];

export function Typing({ id }: { id: string }) {
  const { problem, act } = useAction();
  const type = (text: string) => act(() => callTool("send_input", { id, text }));
  const enter = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const line = String(new FormData(form).get("line"));
    form.reset();
    void type(`${line}\n`);
  };
  return (
    <form onSubmit={enter}>
      <label for="line">Type into the terminal</label>
      <div class="together">
        <input id="line" name="line" {...VERBATIM} />
        <button>Enter</button>
        {KEYS.map(([name, text]) => (
          <button key={name} type="button" class="plain" onClick={() => type(text)}>
            {name}
          </button>
        ))}
      </div>
      <div role="alert">{problem && <p class="note error">{problem}</p>}</div>
    </form>
  );
}

/** The program for a question: the request to the Messages API, and its streamed response, which is untrusted. */
import { createParser } from "eventsource-parser";
import * as z from "zod";
import type { Tokens } from "../runs/task-detail.ts";
import type { ProgramLanguage } from "../shared/languages.ts";
import { parseBounded, parseJSON, SANDBOX_VALUES } from "../shared/bounded.ts";
import { clause, cutText, dropHalfPair, pieceDecoder } from "../shared/text.ts";
import { toVisibleJSON } from "../shared/shown.ts";
import { PROGRAM_TEXTS } from "./texts.ts";

export interface Program {
  language: ProgramLanguage;
  code: string;
}

export const MAX_QUESTION = 20_000;

const MAX_CODE = 50_000;

/** The most tokens of a response, including thinking. The question's budget may be lower. */
const MAX_TOKENS = 16_000;

/** The most bytes to read from one response: about 260 for each token. */
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024;

/** The most characters to show of the model's text, if the model wrote no program. */
const MAX_MODEL_TEXT = 500;

const TOOL = "write_program";

const SYSTEM = `You answer questions by writing one program. Call ${TOOL} once, with all of the program, even where you know the answer or the question is unclear: then state the assumption in a comment.

The program runs at once in a Linux sandbox, in /workspace, and you do not see what it prints: its output is the answer that the user gets. Print a direct and complete answer, with units and short labels. It reads no standard input, gets no arguments, and takes no step that the question does not ask for. Files that the question names are in /workspace. The internet may be out of reach.

Python has numpy, pandas and matplotlib; show a plot with plt.show(). TypeScript runs in Node.js, with top-level await. Install other packages from the program only where nothing else will do.`;

export interface ProgramOrder {
  question: string;
  languages: readonly ProgramLanguage[];
  model: string;
}

/** The request body for Anthropic's Messages API, streamed. @param budget tokens that the question may use */
export function programRequest({ question, languages, model }: ProgramOrder, budget: number) {
  return {
    model,
    max_tokens: Math.min(MAX_TOKENS, budget),
    stream: true,
    system: SYSTEM,
    // The request has no `tool_choice` that forces a call of the tool. The API refuses that setting for models that always think,
    // and a model must be able to decline in text.
    tools: [
      {
        name: TOOL,
        description: "Runs a program. What it prints is the user's answer.",
        // Without this, the API sends the code only when it is complete.
        eager_input_streaming: true,
        input_schema: {
          type: "object",
          properties: {
            language: { type: "string", enum: languages },
            code: { type: "string", description: "The whole program." },
          },
          required: ["language", "code"],
          additionalProperties: false,
        },
      },
    ],
    messages: [{ role: "user", content: question }],
  };
}

/** The parts of the stream's events that are read. Other events and fields are ignored. */
const streamEvent = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("message_start"),
    message: z.object({ usage: z.object({ input_tokens: z.number() }).optional() }),
  }),
  z.object({
    type: z.literal("content_block_start"),
    index: z.number(),
    content_block: z.object({ type: z.string(), name: z.string().optional() }),
  }),
  z.object({
    type: z.literal("content_block_delta"),
    index: z.number(),
    delta: z.object({ partial_json: z.string().optional(), text: z.string().optional() }),
  }),
  z.object({
    type: z.literal("message_delta"),
    delta: z.object({ stop_reason: z.string().nullish() }),
    usage: z.object({ output_tokens: z.number() }).optional(),
  }),
  z.object({ type: z.literal("message_stop") }),
  z.object({ type: z.literal("error"), error: z.object({ type: z.string(), message: z.string() }) }),
]);

/** The JSON of the tool's input up to the beginning of the code, and its most characters. After more, only complete code is shown. */
const MAX_BEFORE_CODE = 200;
const BEFORE_CODE = /^\s*\{\s*(?:"language"\s*:\s*"\w*"\s*,\s*)?"code"\s*:\s*"/;

/** The characters of a JSON string, without an incomplete escape sequence at the end. */
const IN_STRING = /(?:[^"\\]+|\\(?:u[0-9a-fA-F]{4}|[^u]))*/y;

/** A response without a program: the reason as a sentence, and whether a retry may help. */
export interface ProgramProblem {
  problem: string;
  isTransient?: boolean;
}

export class ProgramReader {
  readonly #languages: readonly ProgramLanguage[];
  readonly #decode = pieceDecoder();
  readonly #parser = createParser({ onEvent: ({ data }) => this.#take(data) });
  #bytes = 0;
  #block: number | undefined;
  #input = "";
  /** `#input` is parsed into `#code` up to here. */
  #at: number | undefined;
  #code = "";
  #text = "";
  #stopReason: string | undefined;
  #hasEnded = false;
  #error: string | undefined;
  #usage = { input: 0, output: 0 };

  constructor(languages: readonly ProgramLanguage[]) {
    this.#languages = languages;
  }

  /** The code so far, within its limit, without half a surrogate pair at its end. */
  get code(): string {
    return dropHalfPair(this.#code.slice(0, MAX_CODE));
  }

  get usage(): Pick<Tokens, "input" | "output"> {
    return this.#usage;
  }

  /** Parses a piece of the stream. Returns whether more is needed. */
  add(bytes: Uint8Array): boolean {
    this.#bytes += bytes.length;
    this.#parser.feed(this.#decode(bytes));
    if (this.#bytes > MAX_RESPONSE_BYTES || this.#code.length > MAX_CODE)
      this.#error ??= PROGRAM_TEXTS.tooLong(MAX_CODE);
    return !this.#hasEnded && this.#error === undefined;
  }

  get program(): Program | ProgramProblem {
    const isTransient = this.#code === "";
    if (this.#error !== undefined)
      return { problem: PROGRAM_TEXTS.unusable(clause(this.#error)), isTransient };
    if (!this.#hasEnded) return { problem: PROGRAM_TEXTS.endedEarly, isTransient };
    const modelText = PROGRAM_TEXTS.modelText(cutText(this.#text, MAX_MODEL_TEXT).trim());
    if (this.#stopReason === "refusal") return { problem: PROGRAM_TEXTS.declined + modelText };
    if (this.#stopReason === "max_tokens") return { problem: PROGRAM_TEXTS.overLimit };
    if (this.#block === undefined)
      return { problem: PROGRAM_TEXTS.none + (modelText || PROGRAM_TEXTS.noText) };
    const checked = this.#parseInput();
    return checked.success
      ? checked.data
      : { problem: PROGRAM_TEXTS.invalid(TOOL, checked.error.issues[0]?.message ?? "?") };
  }

  #parseInput() {
    const schema = z.object(
      {
        language: z.enum(this.#languages, `its language is not one of ${this.#languages.join(", ")}`),
        code: z
          .string("it has no code")
          .max(MAX_CODE, `its code is longer than ${MAX_CODE} characters`)
          .refine((code) => code.trim() !== "", "its code is empty"),
      },
      PROGRAM_TEXTS.notAnObject,
    );
    return schema.safeParse(parseBounded(this.#input, SANDBOX_VALUES));
  }

  #take(data: string): void {
    const { success, data: event } = streamEvent.safeParse(parseBounded(data, SANDBOX_VALUES));
    if (!success || this.#hasEnded || this.#error !== undefined) return;
    switch (event.type) {
      case "message_start":
        this.#usage.input = event.message.usage?.input_tokens ?? 0;
        break;
      case "content_block_start":
        if (event.content_block.name === TOOL) this.#block ??= event.index;
        break;
      case "content_block_delta":
        if (this.#text.length < MAX_MODEL_TEXT) this.#text += event.delta.text ?? "";
        if (event.index === this.#block) this.#add(event.delta.partial_json ?? "");
        break;
      case "message_delta":
        this.#stopReason = event.delta.stop_reason ?? this.#stopReason;
        this.#usage.output = event.usage?.output_tokens ?? this.#usage.output;
        break;
      case "message_stop":
        this.#hasEnded = true;
        break;
      case "error":
        this.#error = toVisibleJSON(cutText(`${event.error.type}: ${event.error.message}`, MAX_MODEL_TEXT));
        break;
    }
  }

  #add(json: string): void {
    const { length } = this.#input;
    this.#input += json;
    if (length < MAX_BEFORE_CODE)
      this.#at ??= BEFORE_CODE.exec(this.#input.slice(0, MAX_BEFORE_CODE))?.[0].length;
    if (this.#at === undefined) return;
    IN_STRING.lastIndex = this.#at;
    const [piece = ""] = IN_STRING.exec(this.#input) ?? [];
    const text = parseJSON(`"${piece}"`);
    if (typeof text !== "string") return void (this.#error ??= PROGRAM_TEXTS.notAnObject);
    this.#at += piece.length;
    this.#code += text;
  }
}

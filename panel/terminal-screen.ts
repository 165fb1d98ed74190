/** A terminal's screen, by xterm.js. The page loads this module only if it shows a terminal. */
import { FitAddon } from "@xterm/addon-fit";
import { type ITheme, Terminal } from "@xterm/xterm";
import css from "@xterm/xterm/css/xterm.css";
import { TerminalFilter } from "../src/shared/terminal/filter.ts";
import type { Size } from "../src/shared/terminal/size.ts";
import { addStyle } from "./terminal-style.ts";
import { pasteQuestion, pasteTooLong } from "./texts.ts";

addStyle(css);

const SCROLLBACK = 5000;

/** How many characters are drawn at once. Between slices, the page handles events. */
const SLICE = 2048;

const MAX_PASTED_CHARS = 100_000;

/** Control characters, which pasted text must not contain: they act as keys, or end a paste early. */
// oxlint-disable-next-line no-control-regex
const CONTROL_CHARACTERS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;

interface Options {
  isReadOnly: boolean;
  /** Called for typed text, and for responses to a program's terminal queries. */
  onTyped: (text: string) => void;
  onSize: (size: Size) => void;
  /** Called when the keyboard focus should leave the terminal. */
  onLeave: () => void;
  /** Called with the reason if a text cannot be pasted. */
  onRefused: (reason: string) => void;
  confirm: (question: string) => Promise<boolean>;
}

export class Screen {
  readonly #terminal: Terminal;
  readonly #fit = new FitAddon();
  readonly #observer: ResizeObserver;
  readonly #scheme = matchMedia("(prefers-color-scheme: dark)");
  readonly #element: HTMLElement;
  readonly #options: Options;
  #filter: TerminalFilter;
  /**
   * Whether earlier output is being drawn. Queries in it get no response, because the program got one when it printed the query.
   */
  #isPast = false;

  constructor(element: HTMLElement, options: Options) {
    this.#element = element;
    this.#options = options;
    const terminal = new Terminal({
      scrollback: SCROLLBACK,
      fontFamily: getComputedStyle(element).fontFamily,
      fontSize: 13,
      lineHeight: 1.25,
      minimumContrastRatio: 4.5,
      disableStdin: options.isReadOnly,
      cursorBlink: false,
      theme: this.#theme(),
      // The filter removes links. If it misses one, a click does nothing.
      linkHandler: { activate: () => undefined },
    });
    this.#terminal = terminal;
    this.#filter = this.#newFilter();
    terminal.loadAddon(this.#fit);
    terminal.parser.registerCsiHandler({ final: "n" }, () => this.#isPast);
    terminal.attachCustomKeyEventHandler((event) => this.#isForTerminal(event));
    terminal.onData(options.onTyped);
    terminal.onBinary(options.onTyped);
    terminal.onResize(() => options.onSize(this.size));
    element.addEventListener("paste", this.#paste, { capture: true });
    this.#scheme.addEventListener("change", this.#recolor);
    terminal.open(element);
    this.#fit.fit();
    options.onSize(this.size);
    this.#observer = new ResizeObserver(() => this.#fit.fit());
    this.#observer.observe(element);
  }

  get size(): Size {
    return { rows: this.#terminal.rows, columns: this.#terminal.cols };
  }

  async write(text: string, isPast: boolean): Promise<void> {
    const drawn = this.#filter.take(text);
    this.#isPast = isPast;
    for (let at = 0; at < drawn.length; at += SLICE) this.#terminal.write(drawn.slice(at, at + SLICE));
    await new Promise<void>((done) => this.#terminal.write("", done));
  }

  clear(): void {
    this.#filter = this.#newFilter();
    this.#terminal.reset();
  }

  end(): void {
    this.#terminal.write(this.#filter.resetSequences());
    this.#terminal.options.disableStdin = true;
    this.#terminal.options.cursorInactiveStyle = "none";
  }

  /** Whether a screen reader gets the output, which makes drawing slower. */
  set isReadAloud(isReadAloud: boolean) {
    this.#terminal.options.screenReaderMode = isReadAloud;
  }

  focus(): void {
    this.#terminal.focus();
  }

  close(): void {
    this.#observer.disconnect();
    this.#scheme.removeEventListener("change", this.#recolor);
    this.#element.removeEventListener("paste", this.#paste, { capture: true });
    this.#terminal.dispose();
  }

  #newFilter(): TerminalFilter {
    return new TerminalFilter(() => Math.max(this.#terminal.rows, this.#terminal.cols));
  }

  /** Whether the program gets a key. The page itself handles the keys to leave the terminal, to copy and to paste. */
  #isForTerminal(event: KeyboardEvent): boolean {
    if (event.type !== "keydown" || !event.ctrlKey) return true;
    if (event.key === "]") {
      event.preventDefault();
      this.#options.onLeave();
      return false;
    }
    const isCopy = event.key === "c" && this.#terminal.hasSelection();
    const isPaste = event.shiftKey && event.key.toLowerCase() === "v";
    return !isCopy && !isPaste;
  }

  readonly #paste = (event: ClipboardEvent): void => {
    event.preventDefault();
    event.stopPropagation();
    void this.#enter(event.clipboardData?.getData("text/plain") ?? "");
  };

  async #enter(pasted: string): Promise<void> {
    const text = pasted.replace(CONTROL_CHARACTERS, "");
    const { isReadOnly, onRefused, confirm } = this.#options;
    if (text === "" || isReadOnly) return;
    if (text.length > MAX_PASTED_CHARS) return onRefused(pasteTooLong(MAX_PASTED_CHARS));
    const lines = text.split(/\r\n|\r|\n/).length;
    // In bracketed paste mode, the program waits until the user presses Enter.
    const isEntered = lines > 1 && !this.#terminal.modes.bracketedPasteMode;
    const shown = text.length > 400 ? `${text.slice(0, 400)} ...` : text;
    if (!isEntered || (await confirm(pasteQuestion(lines, shown)))) this.#terminal.paste(text);
  }

  readonly #recolor = (): void => {
    this.#terminal.options.theme = this.#theme();
  };

  #theme(): ITheme {
    const probe = document.createElement("span");
    this.#element.append(probe);
    const colorOf = (name: string) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const colors = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"] as const;
    const theme: ITheme = {
      background: colorOf("back"),
      foreground: colorOf("text"),
      cursor: colorOf("text"),
      cursorAccent: colorOf("back"),
      selectionBackground: colorOf("accent"),
      selectionForeground: colorOf("accent-text"),
      brightBlack: colorOf("soft"),
      brightRed: colorOf("red"),
      brightGreen: colorOf("green"),
      brightYellow: colorOf("yellow"),
      brightBlue: colorOf("blue"),
      brightMagenta: colorOf("magenta"),
      brightCyan: colorOf("cyan"),
      brightWhite: colorOf("text"),
    };
    for (const color of colors) theme[color] = colorOf(color);
    probe.remove();
    return theme;
  }
}

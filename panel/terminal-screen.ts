/** The screen of a terminal, by xterm.js: a file of its own, loaded only where one is shown. It knows nothing of the server. */
import { FitAddon } from "@xterm/addon-fit";
import { type ITheme, Terminal } from "@xterm/xterm";
import css from "@xterm/xterm/css/xterm.css";
import { TerminalFilter } from "../src/shared/terminal/filter.ts";
import type { Size } from "../src/shared/terminal/size.ts";
import { addStyle } from "./terminal-style.ts";

addStyle(css);

/** Lines that can be scrolled back to. */
const SCROLLBACK = 5000;

/** Characters that are drawn at once: between them the page does other things. */
const SLICE = 2048;

/** Characters of the largest text that is pasted. */
const MAX_PASTED_BYTES = 100_000;

/** What no pasted text may hold: a key, or the end of a paste, that whoever pastes does not see. */
// oxlint-disable-next-line no-control-regex
const UNSEEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;

export interface Options {
  /** Whether nothing can be typed. */
  isReadOnly: boolean;
  /** Called with what is typed, and with answers to what a program asks of its terminal. */
  onTyped: (text: string) => void;
  /** Called when the size has changed, and once at first. */
  onSize: (size: Size) => void;
  /** Called when the keyboard is to go elsewhere. */
  onLeave: () => void;
  /** Called with what is wrong with a text that was to be pasted. */
  onRefused: (reason: string) => void;
  /** Asks whoever types a question. */
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
  /** Whether what is drawn was printed before this screen was there: its questions have had their answers. */
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
      // The filter takes links out; this is for what it might miss.
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
    this.#scheme.addEventListener("change", this.#recolour);
    terminal.open(element);
    this.#fit.fit();
    options.onSize(this.size);
    this.#observer = new ResizeObserver(() => this.#fit.fit());
    this.#observer.observe(element);
  }

  get size(): Size {
    return { rows: this.#terminal.rows, columns: this.#terminal.cols };
  }

  /** Draws what a program printed. Resolves when it is drawn. */
  async write(text: string, isPast: boolean): Promise<void> {
    const drawn = this.#filter.take(text);
    this.#isPast = isPast;
    for (let at = 0; at < drawn.length; at += SLICE) this.#terminal.write(drawn.slice(at, at + SLICE));
    await new Promise<void>((done) => this.#terminal.write("", done));
  }

  /** Begins anew. */
  clear(): void {
    this.#filter = this.#newFilter();
    this.#terminal.reset();
  }

  /** Nothing can be typed any more. */
  end(): void {
    this.#terminal.write(this.#filter.restored());
    this.#terminal.options.disableStdin = true;
    this.#terminal.options.cursorInactiveStyle = "none";
  }

  /** Whether what is printed is told to a screen reader, which takes time. */
  set isRead(isRead: boolean) {
    this.#terminal.options.screenReaderMode = isRead;
  }

  focus(): void {
    this.#terminal.focus();
  }

  close(): void {
    this.#observer.disconnect();
    this.#scheme.removeEventListener("change", this.#recolour);
    this.#element.removeEventListener("paste", this.#paste, { capture: true });
    this.#terminal.dispose();
  }

  #newFilter(): TerminalFilter {
    return new TerminalFilter(() => Math.max(this.#terminal.rows, this.#terminal.cols));
  }

  /** Keys that are not the program's: one to leave by, for a keyboard has no other, and those that copy and paste. */
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
    const text = pasted.replace(UNSEEN, "");
    const { isReadOnly, onRefused, confirm } = this.#options;
    if (text === "" || isReadOnly) return;
    if (text.length > MAX_PASTED_BYTES)
      return onRefused(`It is longer than ${MAX_PASTED_BYTES} characters: send it as a file.`);
    const lines = text.split(/\r\n|\r|\n/).length;
    // A program that knows what is pasted leaves it to its user to enter it.
    const isEntered = lines > 1 && !this.#terminal.modes.bracketedPasteMode;
    const shown = text.length > 400 ? `${text.slice(0, 400)} ...` : text;
    const question = `Paste ${lines} lines? Each is entered as it comes.\n\n${shown}`;
    if (!isEntered || (await confirm(question))) this.#terminal.paste(text);
  }

  readonly #recolour = (): void => {
    this.#terminal.options.theme = this.#theme();
  };

  /** The colours of the page. */
  #theme(): ITheme {
    const probe = document.createElement("span");
    this.#element.append(probe);
    const of = (name: string) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const colors = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"] as const;
    const theme: ITheme = {
      background: of("back"),
      foreground: of("text"),
      cursor: of("text"),
      cursorAccent: of("back"),
      selectionBackground: of("accent"),
      selectionForeground: of("accent-text"),
      brightBlack: of("soft"),
      brightRed: of("red"),
      brightGreen: of("green"),
      brightYellow: of("yellow"),
      brightBlue: of("blue"),
      brightMagenta: of("magenta"),
      brightCyan: of("cyan"),
      brightWhite: of("text"),
    };
    for (const color of colors) theme[color] = of(color);
    probe.remove();
    return theme;
  }
}

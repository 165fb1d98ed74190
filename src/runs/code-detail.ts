/** What only a run of code has. */
export interface CodeDetail {
  results: CodeResult[];
  error?: CodeError;
  /** As of a command. */
  ports?: readonly number[];
}

/** An exception. */
export interface CodeError {
  name: string;
  message: string;
  traceback: string[];
}

/** A result of code in its most readable form; for programs the same as HTML, where it has that form and there is room. */
export type CodeResult = { text: string; html?: string } | CodeImage;

export interface CodeImage {
  /** Base64. */
  image: string;
  mimeType: string;
  /** Pixels. Records of earlier versions do not say. */
  width?: number;
  height?: number;
  /** How it differs from what the code has shown, a sentence without its subject. */
  change?: string | undefined;
  /** The file in the sandbox that holds what the code has shown, where it differs and could be kept. */
  original?: { path: string; size: number };
}

export interface CodeDetail {
  results: CodeResult[];
  error?: CodeError;
  /** As for a command. */
  ports?: readonly number[];
}

export interface CodeError {
  name: string;
  message: string;
  traceback: string[];
}

/**
 * A result of code in its most readable form; also as HTML for programs, if it has that form and fits, or why it has not, as a
 * sentence.
 */
export type CodeResult = { text: string; html?: string; leftOut?: string } | CodeImage;

export interface CodeImage {
  /** Base64. */
  image: string;
  mimeType: string;
  /** Pixels; missing in records of earlier versions. */
  width?: number;
  height?: number;
  /** How it differs from what the code displayed: a sentence without its subject. */
  change?: string | undefined;
  /** The file in the sandbox with the original, if the image was changed and could be stored. */
  original?: { path: string; size: number };
}

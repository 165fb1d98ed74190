import type { CodeError } from "../container/kernels/kernel-protocol.ts";

export interface CodeDetail {
  results: CodeResult[];
  error?: CodeError;
  /** Ports that the code's programs listen on. */
  ports?: readonly number[];
}

/**
 * A result of code in its most readable form. `html` is for programs, not for models. If the HTML does not fit, `leftOut` is a
 * sentence that says so.
 */
export type CodeResult = { text: string; html?: string; leftOut?: string } | CodeImage;

export interface CodeImage {
  /** Base64. */
  image: string;
  mimeType: string;
  /** Pixels. */
  width: number;
  height: number;
  /** How this image differs from the image that the code displayed: a sentence without its subject. */
  change?: string | undefined;
  /** The file in the sandbox with the image as the code displayed it, if it could be stored. */
  original?: { path: string; size: number };
}

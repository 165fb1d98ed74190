import type { CodeError } from "../container/kernels/kernel-protocol.ts";

export interface CodeDetail {
  results: CodeResult[];
  error?: CodeError;
  ports?: readonly number[];
}

/** A result in its most readable form. `html` is for programs, not for models; `leftOut` says, as a sentence, that it did not fit. */
export type CodeResult = { text: string; html?: string; leftOut?: string } | CodeImage;

export interface CodeImage {
  /** Base64. */
  image: string;
  mimeType: string;
  /** In pixels; missing in records of earlier versions. */
  width?: number;
  height?: number;
  /** How this image differs from the displayed one: a sentence without its subject. */
  change?: string | undefined;
  /** The original, if the image was changed and the file could be stored. */
  original?: { path: string; size: number };
}

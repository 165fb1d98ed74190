import { extname } from "node:path";

/** By extension, for what people keep in a sandbox. Anything else is told by its first bytes. */
const BY_EXTENSION: Record<string, string> = {
  ".css": "text/css",
  ".csv": "text/csv",
  ".htm": "text/html",
  ".html": "text/html",
  ".js": "text/javascript",
  ".jsx": "text/javascript",
  ".mjs": "text/javascript",
  ".cjs": "text/javascript",
  ".ts": "text/javascript",
  ".tsx": "text/javascript",
  ".mts": "text/javascript",
  ".cts": "text/javascript",
  ".md": "text/markdown",
  ".txt": "text/plain",
  ".log": "text/plain",
  ".xml": "application/xml",
  ".yaml": "text/yaml",
  ".yml": "text/yaml",
  ".toml": "application/toml",
  ".json": "application/json",
  ".jsonl": "application/json",
  ".ipynb": "application/json",
  ".sh": "application/x-sh",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".jpeg": "image/jpeg",
  ".gif": "image/gif",
  ".webp": "image/webp",
  ".avif": "image/avif",
  ".bmp": "image/bmp",
  ".ico": "image/x-icon",
  ".tif": "image/tiff",
  ".tiff": "image/tiff",
  ".mp3": "audio/mpeg",
  ".wav": "audio/wav",
  ".ogg": "audio/ogg",
  ".flac": "audio/flac",
  ".mp4": "video/mp4",
  ".webm": "video/webm",
  ".mov": "video/quicktime",
  ".pdf": "application/pdf",
  ".zip": "application/zip",
  ".gz": "application/gzip",
  ".tgz": "application/gzip",
  ".tar": "application/x-tar",
  ".bz2": "application/x-bzip2",
  ".xz": "application/x-xz",
  ".7z": "application/x-7z-compressed",
  ".wasm": "application/wasm",
  ".woff": "font/woff",
  ".woff2": "font/woff2",
  ".ttf": "font/ttf",
  ".otf": "font/otf",
  ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
};

const BY_MAGIC: [string, string][] = [
  ["\x89PNG\r\n\x1a\n", "image/png"],
  ["\xff\xd8\xff", "image/jpeg"],
  ["GIF8", "image/gif"],
  ["%PDF-", "application/pdf"],
  ["PK\x03\x04", "application/zip"],
  ["\x1f\x8b", "application/gzip"],
  ["\x7fELF", "application/x-executable"],
  ["SQLite format 3\0", "application/vnd.sqlite3"],
];

/** Types that are text without being called `text/...`; also `...+json` and `...+xml`. */
const TEXT_TYPES = new Set([
  "application/ecmascript",
  "application/javascript",
  "application/json",
  "application/json-seq",
  "application/rtf",
  "application/sql",
  "application/toml",
  "application/typescript",
  "application/x-empty",
  "application/x-httpd-php",
  "application/x-javascript",
  "application/x-sh",
  "application/x-shellscript",
  "application/x-typescript",
  "application/x-yaml",
  "application/xml",
  "application/xml-dtd",
  "application/xml-external-parsed-entity",
  "application/yaml",
  "inode/x-empty",
]);

/** How many of a file's first bytes `mimeType` wants to see. */
export const SNIFF_BYTES = 4096;

/**
 * The type of a file by its name, else by its first bytes. The container asks `file` in the second case, which tells
 * more kinds of text apart; text and binary come out the same.
 */
export function mimeType(path: string, head: Uint8Array): string {
  const known = BY_EXTENSION[extname(path).toLowerCase()];
  if (known) return known;
  if (head.length === 0) return "inode/x-empty";
  const start = Buffer.from(head.subarray(0, 32)).toString("latin1");
  for (const [magic, type] of BY_MAGIC) if (start.startsWith(magic)) return type;
  if (start.startsWith("RIFF") && start.slice(8, 12) === "WEBP") return "image/webp";
  if (!isText(head)) return "application/octet-stream";
  return /^#!.*\b(ba|da|z)?sh\b/.test(start) ? "text/x-shellscript" : "text/plain";
}

export function isBinaryType(type: string): boolean {
  return !(
    type.startsWith("text/") ||
    TEXT_TYPES.has(type) ||
    type.endsWith("+json") ||
    type.endsWith("+xml")
  );
}

function isText(head: Uint8Array): boolean {
  if (head.includes(0)) return false;
  // A character may be cut off at the end of a full head.
  const whole = head.length < SNIFF_BYTES;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: !whole });
    return true;
  } catch {
    return false;
  }
}

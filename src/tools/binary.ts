/** Binary files for a model: a description, or the requested bytes. */
import { binaryText } from "./texts.ts";

export const BINARY_BYTES = 48 * 1024;

const FIRST_BYTES = 128;

const ROW_BYTES = 16;

/** How files of a type begin: an offset, and the bytes there, one for each character. The first match counts. */
const SIGNATURES: readonly [offset: number, bytes: string, type: string][] = [
  [0, "%PDF-", "application/pdf (pdf)"],
  [0, "\x1f\x8b", "application/gzip (gz)"],
  [0, "BZh", "application/x-bzip2 (bz2)"],
  [0, "\xfd7zXZ\0", "application/x-xz (xz)"],
  [0, "\x28\xb5\x2f\xfd", "application/zstd (zst)"],
  [0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed (7z)"],
  [0, "Rar!\x1a\x07", "application/vnd.rar (rar)"],
  [257, "ustar", "application/x-tar (tar)"],
  // A ZIP archive has the name of its first entry at 30, and the content after it.
  [30, "[Content_Types].xml", "Office Open XML (docx, xlsx or pptx)"],
  [30, "mimetypeapplication/vnd.oasis.opendocument.", "OpenDocument (odt, ods or odp)"],
  [30, "mimetypeapplication/epub+zip", "application/epub+zip (epub)"],
  [30, "META-INF/", "application/java-archive (jar)"],
  [0, "PK\x03\x04", "application/zip (zip)"],
  [0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "older Office file (doc, xls or ppt)"],
  [0, "SQLite format 3\0", "application/vnd.sqlite3 (sqlite)"],
  [0, "PAR1", "application/vnd.apache.parquet (parquet)"],
  [0, "ARROW1", "application/vnd.apache.arrow.file (arrow)"],
  [0, "\x89HDF\r\n\x1a\n", "application/x-hdf5 (h5)"],
  [0, "\x93NUMPY", "NumPy array (npy)"],
  [0, "\x7fELF", "application/x-elf (elf)"],
  [0, "\0asm", "application/wasm (wasm)"],
  [0, "\xca\xfe\xba\xbe", "Java class or universal Mach-O program"],
  [0, "MZ", "application/x-msdownload (exe)"],
  [4, "ftypavif", "image/avif (avif)"],
  [4, "ftyphei", "image/heic (heic)"],
  [4, "ftypM4A", "audio/mp4 (m4a)"],
  [4, "ftypqt", "video/quicktime (mov)"],
  // Also photos, such as HEIF of some phones, and raw images of cameras.
  [4, "ftyp", "ISO media (mp4, m4v, 3gp, heif or cr3)"],
  [0, "\x1aE\xdf\xa3", "Matroska (mkv or webm)"],
  [8, "WAVE", "audio/wav (wav)"],
  [8, "AVI ", "video/vnd.avi (avi)"],
  [0, "OggS", "application/ogg (ogg)"],
  [0, "fLaC", "audio/flac (flac)"],
  [0, "ID3", "audio/mpeg (mp3)"],
  [0, "\xff\xfb", "audio/mpeg (mp3)"],
  [0, "\xff\xf3", "audio/mpeg (mp3)"],
  [0, "II*\0", "image/tiff (tif)"],
  [0, "MM\0*", "image/tiff (tif)"],
  [0, "BM", "image/bmp (bmp)"],
  [0, "\0\0\x01\0", "image/x-icon (ico)"],
  [0, "wOFF", "font/woff (woff)"],
  [0, "wOF2", "font/woff2 (woff2)"],
  [0, "OTTO", "font/otf (otf)"],
  [0, "\0\x01\0\0", "font/ttf (ttf)"],
  [0, "\xff\xfe", "text in UTF-16"],
  [0, "\xfe\xff", "text in UTF-16"],
];

const SIGNED_BYTES = Math.max(...SIGNATURES.map(([offset, bytes]) => offset + bytes.length));

interface Binary {
  size: number;
  /** The file's beginning. */
  start: Uint8Array;
  /** The call that reads the bytes. */
  next: string;
  /** The bytes are UTF-8 text with NUL. */
  hasNUL: boolean;
}

export function describeBinary(path: string, { size, start, next, hasNUL }: Binary): string {
  const signed = String.fromCharCode(...start.subarray(0, SIGNED_BYTES));
  const [, , kind] = SIGNATURES.find(([offset, bytes]) => signed.startsWith(bytes, offset)) ?? [];
  const shown = start.subarray(0, FIRST_BYTES);
  return `${binaryText(path, { size, kind, next, shown: shown.length, hasNUL })}\n${hexDump(shown)}`;
}

/** Bytes as `xxd` shows them: offset, hexadecimal, printable characters. */
function hexDump(bytes: Uint8Array): string {
  const rows = Array.from({ length: Math.ceil(bytes.length / ROW_BYTES) }, (_, row) => {
    const part = bytes.subarray(row * ROW_BYTES, (row + 1) * ROW_BYTES);
    const hex = part.toHex().replaceAll(/(.{4})(?=.)/g, "$1 ");
    const printable = Array.from(part, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".",
    ).join("");
    return `${(row * ROW_BYTES).toString(16).padStart(8, "0")}: ${hex.padEnd(39)}  ${printable}`;
  });
  return rows.join("\n");
}

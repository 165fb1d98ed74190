/** How contents are stored: compressed if that is smaller. Older versions of Node have no zstd. */
import { promisify } from "node:util";
import zlib from "node:zlib";

type Codec = "raw" | "zstd" | "deflate";
const hasZstd = typeof zlib.zstdCompressSync === "function";
const CODEC: Codec = hasZstd ? "zstd" : "deflate";

/** The fastest level. Compressing with it takes less time than sending the bytes that it saves. */
const options = hasZstd
  ? { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } }
  : ({ level: 1 } as const);
const compressInThread = promisify<Buffer, object, Buffer>(hasZstd ? zlib.zstdCompress : zlib.deflateRaw);
const compressNow = (hasZstd ? zlib.zstdCompressSync : zlib.deflateRawSync) as (
  bytes: Buffer,
  options: object,
) => Buffer;
const decoders = {
  zstd: hasZstd && {
    inThread: promisify<Buffer, object, Buffer>(zlib.zstdDecompress),
    now: zlib.zstdDecompressSync,
  },
  deflate: { inThread: promisify<Buffer, object, Buffer>(zlib.inflateRaw), now: zlib.inflateRawSync },
};

/** Below this size, starting a thread takes longer than compressing. */
const THREAD_BYTES = 64 * 1024;

export async function compress(bytes: Buffer): Promise<{ bytes: Buffer; codec: Codec }> {
  const compressed =
    bytes.length < THREAD_BYTES ? compressNow(bytes, options) : await compressInThread(bytes, options);
  return compressed.length < bytes.length ? { bytes: compressed, codec: CODEC } : { bytes, codec: "raw" };
}

/**
 * @param codec undefined for a manifest, because its first bytes show the codec
 * @throws Error for invalid bytes, or for more than `max` decompressed bytes
 */
export async function decompress(bytes: Buffer, codec: Codec | undefined, max: number): Promise<Buffer> {
  const usedCodec = codec ?? codecOf(bytes);
  if (usedCodec === "raw") {
    if (bytes.length > max) throw new Error("too long");
    return bytes;
  }
  const decode = decoders[usedCodec];
  if (!decode) throw new Error(`this version of Node has no ${usedCodec}`);
  const limit = { maxOutputLength: Math.max(1, max) };
  return max < THREAD_BYTES ? decode.now(bytes, limit) : await decode.inThread(bytes, limit);
}

/** Returns the codec of a manifest. An uncompressed manifest begins with `{`, and zstd's data with its magic number (RFC 8878). */
function codecOf(manifest: Buffer): Codec {
  if (manifest[0] === 0x7b) return "raw";
  return manifest.subarray(0, 4).toString("hex") === "28b52ffd" ? "zstd" : "deflate";
}

/**
 * The file that the page moves: bytes that look random, the same wherever they are made, and never all in memory.
 * The page and the server both have this module.
 *
 * @module
 */

import { fromHex } from "@betanet/htx/core";

/** Its size unless another is asked for, in bytes: 50 MiB. */
export const FILE_LENGTH: number = 50 * 1024 ** 2;
/** The SHA-256 of its first 50 MiB. */
export const FILE_SHA256 = "399331c0c173a2b0de916f68de1f8e48e2b7e32c92bd98e63351c9354c574001";

/** Bytes made at once. */
const CHUNK_LENGTH = 65_536;
/** The first state of the generator. */
const SEED = 0x2545f491;

/** The first `length` bytes of the file, made as they are read. */
export function fileStream(length: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let state = SEED;
  let left = length;
  return new ReadableStream({
    pull(controller) {
      if (left <= 0) return controller.close();
      const chunk = new Uint8Array(CHUNK_LENGTH);
      const view = new DataView(chunk.buffer);
      for (let at = 0; at < CHUNK_LENGTH; at += 4) {
        // xorshift32 (Marsaglia 2003, "Xorshift RNGs"): not for secrets, good enough against compression.
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        view.setUint32(at, state, true);
      }
      controller.enqueue(left < CHUNK_LENGTH ? chunk.subarray(0, left) : chunk);
      left -= CHUNK_LENGTH;
    },
  }, { highWaterMark: 0 });
}

/** The `content-digest` field (RFC 9530 §2) of a SHA-256 in hexadecimal. */
export function contentDigest(sha256: string): string {
  return `sha-256=:${btoa(String.fromCharCode(...fromHex(sha256)))}:`;
}

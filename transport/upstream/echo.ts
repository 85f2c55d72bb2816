/**
 * The echo upstream: what a stream brings, it takes back.
 *
 * @module
 */

import type { StreamHandler } from "../server.ts";

/**
 * Answers every stream with its own bytes, as they come; the end of one direction ends the other.
 *
 * @example
 * ```ts
 * import { echo, roundtrip, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveStreams(echo());
 * const answer = await roundtrip(server.addr, new Uint8Array([1, 2, 3]), { remoteStatic: server.publicKey });
 * assertEquals(answer, new Uint8Array([1, 2, 3]));
 * ```
 */
export function echo(): StreamHandler {
  return async (stream) => {
    try {
      for (;;) {
        const chunk = await stream.read();
        if (chunk === null) return await stream.closeWrite();
        // The end that is here already rides on the last data.
        const end = stream.receiveEnded && stream.receivedBytes === 0;
        await stream.write(chunk, { end });
        if (end) return;
      }
    } catch (error) {
      if (stream.error === undefined) throw error; // a reset is an ordinary end of an echo
    }
  };
}

/**
 * Joining two duplexes: a front that hands the bytes of an inner session on, and sees ciphertext only.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { ByteIo, Duplex } from "../core/mod.ts";
import { duplexIo } from "./_duplex_io.ts";
import { endDuplex } from "../core/_end_duplex.ts";

const BUFFER_LENGTH = 65_536;
/** What a session of the usual bounds may have under way: the first windows of its streams, and what they may grow by. */
const DEFAULT_MAX_BUFFERED: number = 32 * 1024 ** 2;

/** Options of {@linkcode relayDuplex}. */
export interface RelayDuplexOptions {
  /** Bytes that may wait on a carrier that cannot make its peer wait, such as a runtime's WebSocket. @default {33554432} */
  maxBufferedBytes?: number | undefined;
}

/**
 * Carries bytes both ways, each end as such, until both directions have ended; then, or when either breaks, closes
 * both.
 *
 * @example
 * ```ts
 * import { memoryDuplexPair, relayDuplex } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const [client, front] = memoryDuplexPair();
 * const [back, server] = memoryDuplexPair();
 * const relaying = relayDuplex(front, back);
 * await client.io!.write(new Uint8Array([1, 2, 3]));
 * await client.io!.closeWrite();
 * const into = new Uint8Array(8);
 * assertEquals([await server.io!.read(into), await server.io!.read(into)], [3, null]);
 * await server.io!.closeWrite();
 * await relaying;
 * ```
 *
 * @throws what a carrier failed with
 */
export async function relayDuplex(
  one: Duplex,
  other: Duplex,
  options: RelayDuplexOptions = {},
): Promise<void> {
  const { maxBufferedBytes = DEFAULT_MAX_BUFFERED } = options;
  const ends: ByteIo[] = [];
  try {
    for (const duplex of [one, other]) {
      duplex.limitReceive?.(() => maxBufferedBytes);
      ends.push(duplexIo(duplex));
    }
  } catch (error) {
    for (const io of ends) io.close();
    endDuplex(one);
    endDuplex(other);
    throw error;
  }
  const [a, b] = ends;
  try {
    // The first failure ends it: the other direction then fails too, unheard.
    await Promise.all([pump(a!, b!), pump(b!, a!)]);
  } finally {
    a!.close();
    b!.close();
  }
}

async function pump(from: ByteIo, to: ByteIo): Promise<void> {
  const buffer = new Uint8Array(BUFFER_LENGTH);
  for (;;) {
    const length = await from.read(buffer);
    if (length === null) return await to.closeWrite();
    await to.write(buffer.subarray(0, length));
  }
}

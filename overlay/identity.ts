/**
 * Who a peer is: the hash of its public key.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { concat, fromHex, selectCrypto, timingSafeEqual, toHex } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { malformed } from "./_malformed.ts";

/** "PeerID = multihash `0x12 0x20 ‖ SHA-256(public key)`": the code of sha2-256 and the length of its digest. */
const SHA256_MULTIHASH = /* @__PURE__ */ Uint8Array.of(0x12, 0x20);
/** Length of a peer id in bytes. */
export const PEER_ID_LENGTH = 34;

/** What {@linkcode verifyPeerId} says. */
export type PeerIdVerdict = { readonly ok: true } | { readonly ok: false; readonly reason: "other-key" };

/**
 * The peer id of a public key.
 *
 * @throws {TypeError} when the key is empty
 *
 * @example
 * ```ts
 * import { formatPeerId, parsePeerId, peerIdOf } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const id = peerIdOf(new Uint8Array(32));
 * assertEquals(formatPeerId(id).slice(0, 8), "122066687a".slice(0, 8));
 * assertEquals(parsePeerId(formatPeerId(id)), id);
 * ```
 */
export function peerIdOf(publicKey: Uint8Array): Bytes {
  if (publicKey.length === 0) throw new TypeError("Cannot make peer id: the public key is empty");
  return concat(SHA256_MULTIHASH, selectCrypto().sha256(publicKey));
}

/**
 * A peer id as it is shown: 68 lower-case hexadecimal digits.
 *
 * @throws {HtxError} `MALFORMED`, field `peerId`, when the bytes are no peer id
 */
export function formatPeerId(peerId: Uint8Array): string {
  return toHex(checkPeerId(peerId));
}

/**
 * Reads back what {@linkcode formatPeerId} wrote, and nothing else.
 *
 * @throws {HtxError} `MALFORMED`, field `peerId`
 */
export function parsePeerId(text: string): Bytes {
  if (!/^[0-9a-f]*$/.test(text)) throw malformed("peer id", "peerId", "is not lower-case hexadecimal");
  if (text.length !== 2 * PEER_ID_LENGTH) {
    throw malformed("peer id", "peerId", `has ${text.length} digits, not ${2 * PEER_ID_LENGTH}`);
  }
  return checkPeerId(fromHex(text));
}

/**
 * Checks that bytes have the length and the prefix of a peer id, and gives a copy.
 *
 * @throws {HtxError} `MALFORMED`, field `peerId`
 */
export function checkPeerId(peerId: Uint8Array): Bytes {
  if (peerId.length !== PEER_ID_LENGTH) {
    throw malformed("peer id", "peerId", `is ${peerId.length} bytes, not ${PEER_ID_LENGTH}`);
  }
  if (peerId[0] !== SHA256_MULTIHASH[0] || peerId[1] !== SHA256_MULTIHASH[1]) {
    throw malformed("peer id", "peerId", "is not a sha2-256 multihash of 32 bytes");
  }
  return new Uint8Array(peerId);
}

/**
 * Tells whether a peer id belongs to a presented public key.
 *
 * @throws {HtxError} `MALFORMED`, field `peerId`, when the bytes are no peer id
 */
export function verifyPeerId(peerId: Uint8Array, publicKey: Uint8Array): PeerIdVerdict {
  return timingSafeEqual(checkPeerId(peerId), peerIdOf(publicKey))
    ? { ok: true }
    : { ok: false, reason: "other-key" };
}

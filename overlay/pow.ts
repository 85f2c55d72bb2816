/**
 * Proof of work: leading zero bits of a hash.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { selectCrypto, u64be } from "./_core.ts";
import type { Bytes } from "./_core.ts";

/** "Responders require proof of work: at least 22 leading zero bits of SHA-256(challenge ‖ nonce)." */
export const POW_MIN_BITS = 22;
const HASH_BITS = 256;

/** What {@linkcode verifyProofOfWork} says. */
export type ProofOfWorkVerdict =
  | { readonly ok: true; readonly bits: number; readonly required: number }
  | {
    readonly ok: false;
    readonly reason: "too-little-work";
    readonly bits: number;
    readonly required: number;
  };

/** Zero bits before the first one bit. */
export function leadingZeroBits(bytes: Uint8Array): number {
  const at = bytes.findIndex((byte) => byte !== 0);
  return at < 0 ? 8 * bytes.length : 8 * at + Math.clz32(bytes[at]!) - 24;
}

/**
 * Checks a proof of work with one hash, whatever the difficulty ("verification does constant work").
 *
 * @param required bits wanted
 * @throws {RangeError} when `required` is not 0 to 256
 *
 * @example
 * ```ts
 * import { solveProofOfWork, verifyProofOfWork } from "@betanet/htx/overlay";
 * import { assert } from "@std/assert";
 *
 * const challenge = new TextEncoder().encode("challenge");
 * const nonce = solveProofOfWork(challenge, 8);
 * assert(nonce);
 * assert(verifyProofOfWork(challenge, nonce, 8).ok);
 * ```
 */
export function verifyProofOfWork(
  challenge: Uint8Array,
  nonce: Uint8Array,
  required: number = POW_MIN_BITS,
): ProofOfWorkVerdict {
  checkBits(required);
  const bits = leadingZeroBits(selectCrypto().sha256(challenge, nonce));
  return bits >= required
    ? { ok: true, bits, required }
    : { ok: false, reason: "too-little-work", bits, required };
}

/** Settings of {@linkcode solveProofOfWork}. */
export interface SolveOptions {
  /** First nonce tried. @default {0n} */
  start?: bigint | undefined;
  /** Most nonces tried. @default {2n ** 32n} */
  tries?: bigint | undefined;
}

/**
 * Looks for an 8-byte nonce, which takes 2^bits tries on average (22 bits: some seconds) and blocks meanwhile; call it
 * with a small `tries` and a growing `start` to do it in pieces. `undefined` when no nonce in the range will do.
 */
export function solveProofOfWork(
  challenge: Uint8Array,
  bits: number = POW_MIN_BITS,
  options: SolveOptions = {},
): Bytes | undefined {
  checkBits(bits);
  const { start = 0n, tries = 2n ** 32n } = options;
  const crypto = selectCrypto();
  for (let n = start; n < start + tries; n++) {
    const nonce = u64be(n);
    if (leadingZeroBits(crypto.sha256(challenge, nonce)) >= bits) return nonce;
  }
  return undefined;
}

function checkBits(bits: number): void {
  if (!Number.isInteger(bits) || bits < 0 || bits > HASH_BITS) {
    throw new RangeError(`Cannot use proof of work: ${bits} bits, not 0 to ${HASH_BITS}`);
  }
}

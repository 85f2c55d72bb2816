/**
 * Quorum certificates: many signers vouch for one payload.
 *
 *     { "payloadHash": bytes[32], "epoch": uint, "signers": [bytes[32] …], "weights": [number …], "sigs": [bytes[64] …] }
 *     each sig = Ed25519(signer, "bn-aa1" ‖ payloadHash ‖ uint64 epoch)
 *
 * "Keys in this order, shortest forms, definite lengths." A weight that is a whole number is written as an integer,
 * any other as the shortest float that holds it (our choice: weights are made of logarithms).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { concat, copyOf, ed25519Sign, ed25519Verify, timingSafeEqual, toHex, u64be, utf8 } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed, requireBytes } from "./_malformed.ts";
import { compareShare, ratio, toUnits } from "./_units.ts";
import { type CborValue, decodeCborMap, encodeCbor } from "./cbor.ts";

/** "A quorum certificate over the payload hash of at least 67 % of effective weight", in percent. */
export const QUORUM_PERCENT = 67;
/** Most signers of one certificate. */
export const MAX_QUORUM_SIGNERS = 4_096;
/** How far a claimed weight may be from the computed one, relative to it: logarithms differ in their last digits. */
export const WEIGHT_TOLERANCE = 1e-9;

const KEYS = ["payloadHash", "epoch", "signers", "weights", "sigs"] as const;
const HASH_LENGTH = 32;
const KEY_LENGTH = 32;
const SIGNATURE_LENGTH = 64;
/** Head of the map, its keys, the hash and the heads of the lists; then per signer key, weight and signature. */
const MAX_LENGTH = 128 + MAX_QUORUM_SIGNERS * (34 + 9 + 66);
const SIGNATURE_CONTEXT = /* @__PURE__ */ utf8("bn-aa1");
const WHAT = "quorum certificate";

/** A certificate; nothing in it is believed before {@linkcode verifyQuorumCertificate} says so. */
export interface QuorumCertificate {
  /** SHA-256 of what is certified: 32 bytes. */
  readonly payloadHash: Bytes;
  /** The epoch of the weights. */
  readonly epoch: bigint;
  /** Public keys. */
  readonly signers: readonly Bytes[];
  /** Weights that are claimed for them, in the same order. */
  readonly weights: readonly number[];
  /** Their signatures, in the same order. */
  readonly sigs: readonly Bytes[];
}

/** The bytes of a certificate. */
export function encodeQuorumCertificate(certificate: QuorumCertificate): Bytes {
  const { payloadHash, epoch, signers, weights, sigs } = certificate;
  checkBytes(payloadHash, HASH_LENGTH, "payload hash");
  u64be(epoch);
  if (signers.length !== weights.length || signers.length !== sigs.length) {
    throw new TypeError("Cannot encode quorum certificate: signers, weights and sigs differ in number");
  }
  if (signers.length > MAX_QUORUM_SIGNERS) {
    throw new RangeError(`Cannot encode quorum certificate: ${signers.length} signers`);
  }
  for (const signer of signers) checkBytes(signer, KEY_LENGTH, "signer");
  for (const sig of sigs) checkBytes(sig, SIGNATURE_LENGTH, "signature");
  for (const weight of weights) {
    if (!(weight >= 0 && weight <= Number.MAX_SAFE_INTEGER)) {
      throw new RangeError(`Cannot encode quorum certificate: a weight is ${weight}`);
    }
  }
  // -0 is written as 0.
  const values: Record<typeof KEYS[number], CborValue> = {
    payloadHash,
    epoch,
    signers: [...signers],
    weights: weights.map((weight) => weight + 0),
    sigs: [...sigs],
  };
  return encodeCbor(new Map(KEYS.map((key) => [key, values[key]])));
}

/**
 * Reads exactly one certificate.
 *
 * @throws {HtxError} `MALFORMED`, with the offending key (or `cbor`) as `field`
 */
export function decodeQuorumCertificate(bytes: Uint8Array): QuorumCertificate {
  if (bytes.length > MAX_LENGTH) throw malformed(WHAT, "cbor", `is longer than ${MAX_LENGTH} bytes`);
  const map = decodeCborMap(bytes, KEYS, WHAT);
  const { payloadHash, epoch } = map;
  requireBytes(payloadHash, HASH_LENGTH, WHAT, "payloadHash");
  if (typeof epoch === "bigint" ? epoch < 0n : !(Number.isInteger(epoch) && Number(epoch) >= 0)) {
    throw malformed(WHAT, "epoch", "is not an unsigned integer");
  }
  const signers = list(map.signers, "signers", (item) => fixed(item, KEY_LENGTH, "signers"));
  const weights = list(map.weights, "weights", (item) => {
    // An integer past 2^53 comes as bigint, and no weight is that large.
    if (typeof item === "number" && item >= 0) return item;
    throw malformed(WHAT, "weights", "holds what is no weight");
  });
  const sigs = list(map.sigs, "sigs", (item) => fixed(item, SIGNATURE_LENGTH, "sigs"));
  if (weights.length !== signers.length) throw malformed(WHAT, "weights", "are not as many as the signers");
  if (sigs.length !== signers.length) throw malformed(WHAT, "sigs", "are not as many as the signers");
  return {
    payloadHash: copyOf(payloadHash),
    epoch: BigInt(epoch as number | bigint),
    signers,
    weights,
    sigs,
  };
}

/** The signature of one signer of a certificate. */
export function signQuorum(payloadHash: Uint8Array, epoch: bigint, privateKey: Uint8Array): Bytes {
  return ed25519Sign(signedBytes(payloadHash, epoch), privateKey);
}

/** What {@linkcode verifyQuorumCertificate} measures a certificate by. */
export interface QuorumRules {
  /** Hash of the payload that it has to be about, 32 bytes. */
  payloadHash: Uint8Array;
  /** Effective weights by public key in lower-case hexadecimal: see {@linkcode effectiveWeights}. */
  weights: ReadonlyMap<string, number>;
  /** Lowest epoch accepted: that of the last certificate accepted. @default {0n} */
  minEpoch?: bigint | undefined;
}

/** Why a certificate is refused. */
export type QuorumRefusal =
  /** it is about another payload */
  | "payload-hash"
  /** its epoch is lower than one accepted before */
  | "epoch-too-low"
  /** a key signs twice */
  | "duplicate-signer"
  /** a key is not in the table of weights */
  | "unknown-signer"
  /** more weight is claimed for a key than the rules give it */
  | "weight-inflated"
  /** less weight is claimed for a key than the rules give it */
  | "weight-understated"
  /** the signers have less than 67 % of the weight */
  | "quorum"
  /** a signature does not verify */
  | "signature";

/** The verdict on a certificate. */
export type QuorumVerdict =
  | {
    readonly ok: true;
    /** Share of the effective weight that signed. */
    readonly share: number;
  }
  | {
    readonly ok: false;
    readonly reason: QuorumRefusal;
    /** The signer that it is about, by its place; absent when it is about the whole. */
    readonly signer?: number;
    /** The share found, where it is the reason. */
    readonly share?: number;
  };

/**
 * "Every signature is verified, weights are recomputed from the governance rules rather than believed, duplicate signers
 * and lower epochs are refused." One bad signer spoils the certificate. Signatures come last, so that a certificate that
 * cannot count costs no more than looking things up.
 */
export function verifyQuorumCertificate(certificate: QuorumCertificate, rules: QuorumRules): QuorumVerdict {
  const { payloadHash, epoch, signers, weights, sigs } = certificate;
  const { minEpoch = 0n } = rules;
  if (!timingSafeEqual(payloadHash, rules.payloadHash)) return { ok: false, reason: "payload-hash" };
  if (epoch < minEpoch) return { ok: false, reason: "epoch-too-low" };
  let total = 0n;
  for (const weight of rules.weights.values()) total += toUnits(weight);
  let signed = 0n;
  const seen = new Set<string>();
  for (const [signer, key] of signers.entries()) {
    const id = toHex(key);
    if (seen.has(id)) return { ok: false, reason: "duplicate-signer", signer };
    seen.add(id);
    const weight = rules.weights.get(id);
    if (weight === undefined) return { ok: false, reason: "unknown-signer", signer };
    const claimed = weights[signer] ?? NaN;
    if (!(Math.abs(claimed - weight) <= WEIGHT_TOLERANCE * weight)) {
      return { ok: false, reason: claimed > weight ? "weight-inflated" : "weight-understated", signer };
    }
    signed += toUnits(weight);
  }
  const share = ratio(signed, total);
  if (total === 0n || compareShare(signed, total, QUORUM_PERCENT / 100) < 0) {
    return { ok: false, reason: "quorum", share };
  }
  const message = signedBytes(payloadHash, epoch);
  for (const [signer, key] of signers.entries()) {
    const sig = sigs[signer];
    if (sig === undefined || !ed25519Verify(sig, message, key)) {
      return { ok: false, reason: "signature", signer };
    }
  }
  return { ok: true, share };
}

function signedBytes(payloadHash: Uint8Array, epoch: bigint): Bytes {
  checkBytes(payloadHash, HASH_LENGTH, "payload hash");
  return concat(SIGNATURE_CONTEXT, payloadHash, u64be(epoch));
}

function list<T>(value: CborValue, field: string, item: (value: CborValue) => T): T[] {
  if (!Array.isArray(value)) throw malformed(WHAT, field, "is not a list");
  if (value.length > MAX_QUORUM_SIGNERS) {
    throw malformed(WHAT, field, `has more than ${MAX_QUORUM_SIGNERS} items`);
  }
  return value.map(item);
}

function fixed(value: CborValue, length: number, field: string): Bytes {
  requireBytes(value, length, WHAT, field);
  return copyOf(value);
}

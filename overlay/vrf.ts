/**
 * Verifiable random function over edwards25519: RFC 9381, suites ECVRF-EDWARDS25519-SHA512-TAI and -ELL2.
 *
 *     pi (80 bytes)  = Gamma[32] ‖ c[16, little-endian] ‖ s[32, little-endian]
 *     beta (64)      = SHA-512(suite ‖ 0x03 ‖ cofactor * Gamma ‖ 0x00)
 *
 * Both suites take the same keys, those of Ed25519. TAI ("try and increment") takes a time that depends on alpha;
 * ELL2 does not, as far as the arithmetic below it is even (@noble/curves does not promise that).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ed25519, ed25519_hasher } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { concat, timingSafeEqual, utf8 } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed } from "./_malformed.ts";

/** Which way alpha is hashed to the curve. */
export type VrfSuite = "TAI" | "ELL2";

/** Settings of the functions of this module. */
export interface VrfOptions {
  /** The suite. @default {"ELL2"} */
  suite?: VrfSuite | undefined;
}

/** What {@linkcode vrfVerify} says. */
export type VrfVerdict =
  | { readonly ok: true; readonly beta: Bytes }
  | { readonly ok: false; readonly reason: "public-key" | "proof-encoding" | "proof" };

/** Length of a proof. */
export const VRF_PROOF_LENGTH = 80;
/** Length of an output. */
export const VRF_OUTPUT_LENGTH = 64;

const KEY_LENGTH = 32;
/** RFC 9381 §5.5: ptLen = 32, cLen = 16, qLen = 32. */
const POINT_LENGTH = 32;
const CHALLENGE_LENGTH = 16;
/** RFC 9381 §5.5: suite_string = 0x03 (TAI), 0x04 (ELL2). */
const SUITE_STRING: Readonly<Record<VrfSuite, number>> = { TAI: 0x03, ELL2: 0x04 };
/** RFC 9381 §5.5: h2c_suite_ID_string ‖ suite_string after "ECVRF_". */
const ELL2_DST = "ECVRF_edwards25519_XMD:SHA-512_ELL2_NU_\x04";
const ENCODE_TO_CURVE = 0x01;
const CHALLENGE = 0x02;
const PROOF_TO_HASH = 0x03;

type Point = InstanceType<typeof ed25519.Point>;

/**
 * The proof that `vrfProofToHash(proof)` is the output for `alpha` under a key (RFC 9381 §5.1).
 *
 * @param privateKey 32 bytes, as of Ed25519
 * @throws {TypeError} when the key is not 32 bytes
 *
 * @example
 * ```ts
 * import { vrfProofToHash, vrfProve, vrfVerify } from "@betanet/htx/overlay";
 * import { ed25519PublicKey } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const privateKey = new Uint8Array(32).fill(7);
 * const alpha = new TextEncoder().encode("what to draw from");
 * const proof = vrfProve(privateKey, alpha);
 * assertEquals(vrfVerify(ed25519PublicKey(privateKey), alpha, proof), { ok: true, beta: vrfProofToHash(proof) });
 * ```
 */
export function vrfProve(privateKey: Uint8Array, alpha: Uint8Array, options: VrfOptions = {}): Bytes {
  checkBytes(privateKey, KEY_LENGTH, "VRF key");
  const suite = SUITE_STRING[checkSuite(options.suite)];
  // RFC 8032 §5.1.5: x is the clamped first half of SHA-512(SK), Y = x*B; the second half makes the nonce.
  const { scalar: x, prefix, pointBytes: publicKey } = ed25519.utils.getExtendedPublicKey(privateKey);
  const h = encodeToCurve(publicKey, alpha, suite);
  const hString = h.toBytes();
  const gamma = h.multiply(x);
  // RFC 9381 §5.4.2.2: k = SHA-512(second half of SHA-512(SK) ‖ h_string) mod q
  const k = mod(fromLittleEndian(sha512(concat(prefix, hString))));
  const c = challenge(suite, [
    publicKey,
    hString,
    gamma.toBytes(),
    ed25519.Point.BASE.multiply(k).toBytes(),
    h.multiply(k).toBytes(),
  ]);
  const s = mod(k + fromLittleEndian(c) * x);
  return concat(gamma.toBytes(), c, toLittleEndian(s, 32));
}

/**
 * Checks a proof, its key included (RFC 9381 §5.3 with validate_key): on success the output. Never throws on what it
 * is given from outside.
 */
export function vrfVerify(
  publicKey: Uint8Array,
  alpha: Uint8Array,
  proof: Uint8Array,
  options: VrfOptions = {},
): VrfVerdict {
  const suiteName = checkSuite(options.suite);
  const suite = SUITE_STRING[suiteName];
  const y = stringToPoint(publicKey);
  // RFC 9381 §5.4.5: cofactor * Y must not be the identity.
  if (!y || y.isSmallOrder()) return { ok: false, reason: "public-key" };
  const decoded = decodeProof(proof);
  if (!decoded) return { ok: false, reason: "proof-encoding" };
  const { gamma, c, cString, s } = decoded;
  const h = encodeToCurve(publicKey, alpha, suite);
  // RFC 9381 §5.3 steps 8 to 11: U = s*B - c*Y, V = s*H - c*Gamma
  const u = ed25519.Point.BASE.multiplyUnsafe(s).subtract(y.multiplyUnsafe(c));
  const v = h.multiplyUnsafe(s).subtract(gamma.multiplyUnsafe(c));
  const expected = challenge(suite, [publicKey, h.toBytes(), gamma.toBytes(), u.toBytes(), v.toBytes()]);
  if (!timingSafeEqual(expected, cString)) return { ok: false, reason: "proof" };
  return { ok: true, beta: gammaToHash(gamma, suite) };
}

/**
 * The output that a proof stands for (RFC 9381 §5.2). It says nothing of whether the proof is right: a peer's output
 * comes from {@linkcode vrfVerify}.
 *
 * @throws {HtxError} `MALFORMED`, field `proof`
 */
export function vrfProofToHash(proof: Uint8Array, options: VrfOptions = {}): Bytes {
  const suite = SUITE_STRING[checkSuite(options.suite)];
  const decoded = decodeProof(proof);
  if (!decoded) throw malformed("VRF proof", "proof", "is not 80 bytes of a point, a challenge and a scalar");
  return gammaToHash(decoded.gamma, suite);
}

function checkSuite(suite: VrfSuite = "ELL2"): VrfSuite {
  if (suite !== "TAI" && suite !== "ELL2") throw new TypeError(`Cannot use VRF: no suite named ${suite}`);
  return suite;
}

/** RFC 9381 §5.4.4. */
function decodeProof(
  proof: Uint8Array,
): { gamma: Point; c: bigint; cString: Uint8Array; s: bigint } | undefined {
  if (proof.length !== VRF_PROOF_LENGTH) return undefined;
  const gamma = stringToPoint(proof.subarray(0, POINT_LENGTH));
  const cString = proof.subarray(POINT_LENGTH, POINT_LENGTH + CHALLENGE_LENGTH);
  const s = fromLittleEndian(proof.subarray(POINT_LENGTH + CHALLENGE_LENGTH));
  if (!gamma || s >= ed25519.Point.Fn.ORDER) return undefined;
  return { gamma, c: fromLittleEndian(cString), cString, s };
}

/** RFC 8032 §5.1.3, without the leniency of ZIP-215. */
function stringToPoint(bytes: Uint8Array): Point | undefined {
  if (bytes.length !== POINT_LENGTH) return undefined;
  try {
    return ed25519.Point.fromBytes(bytes, false);
  } catch {
    return undefined;
  }
}

/** RFC 9381 §5.4.1; encode_to_curve_salt = PK_string. */
function encodeToCurve(publicKey: Uint8Array, alpha: Uint8Array, suite: number): Point {
  if (suite === SUITE_STRING.ELL2) {
    // RFC 9381 §5.4.1.2. The curve's hash function already clears the cofactor.
    return ed25519.Point.fromAffine(
      ed25519_hasher.encodeToCurve(concat(publicKey, alpha), { DST: utf8(ELL2_DST) }).toAffine(),
    );
  }
  // RFC 9381 §5.4.1.1
  for (let ctr = 0; ctr < 256; ctr++) {
    const hash = sha512(
      concat(Uint8Array.of(suite, ENCODE_TO_CURVE), publicKey, alpha, Uint8Array.of(ctr, 0x00)),
    );
    const h = stringToPoint(hash.subarray(0, POINT_LENGTH))?.clearCofactor();
    if (h && !h.is0()) return h;
  }
  throw new Error("Cannot hash to curve: 256 tries failed"); // with probability 2^-256
}

/** RFC 9381 §5.4.3. */
function challenge(suite: number, points: Uint8Array[]): Bytes {
  const hash = sha512(concat(Uint8Array.of(suite, CHALLENGE), ...points, Uint8Array.of(0x00)));
  return new Uint8Array(hash.subarray(0, CHALLENGE_LENGTH));
}

function gammaToHash(gamma: Point, suite: number): Bytes {
  return new Uint8Array(
    sha512(concat(Uint8Array.of(suite, PROOF_TO_HASH), gamma.clearCofactor().toBytes(), Uint8Array.of(0x00))),
  );
}

function mod(n: bigint): bigint {
  return ed25519.Point.Fn.create(n);
}

function fromLittleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  return value;
}

function toLittleEndian(value: bigint, length: number): Bytes {
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) {
    out[i] = Number(value & 0xffn);
    value >>= 8n;
  }
  return out;
}

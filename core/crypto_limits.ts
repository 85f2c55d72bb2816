/**
 * Sizes of the primitives and the checks that every backend makes before it touches a key, so that all of them
 * refuse the same arguments in the same way.
 *
 * @module
 */

/** ChaCha20-Poly1305 key length (RFC 8439 §2.8). */
export const KEY_LENGTH = 32;
/** ChaCha20-Poly1305 nonce length (RFC 8439 §2.8); no other is taken. */
export const NONCE_LENGTH = 12;
/** Poly1305 tag length (RFC 8439 §2.5). */
export const TAG_LENGTH = 16;
/** SHA-256 output length. */
export const HASH_LENGTH = 32;
/** X25519 private, public and shared value length (RFC 7748 §5). */
export const DH_LENGTH = 32;
/** ML-KEM-768 seed, d then z (FIPS 203 §7.1). */
export const KEM_SEED_LENGTH = 64;
/** ML-KEM-768 encapsulation key (FIPS 203 table 3). */
export const KEM_PUBLIC_KEY_LENGTH = 1184;
/** ML-KEM-768 ciphertext (FIPS 203 table 3). */
export const KEM_CIPHERTEXT_LENGTH = 1088;
/** Random bytes of one encapsulation (FIPS 203 §7.2). */
export const KEM_MESSAGE_LENGTH = 32;
/** RFC 5869 §2.3: "L ≤ 255*HashLen". */
export const HKDF_MAX_LENGTH = 255 * HASH_LENGTH;

/** Throws a TypeError unless `bytes` has exactly `length` bytes; the bytes themselves stand in no message. */
export function requireBytes(verb: string, what: string, bytes: Uint8Array, length: number): void {
  if (!(bytes instanceof Uint8Array) || bytes.length !== length) {
    throw new TypeError(`Cannot ${verb}: ${what} must be a Uint8Array of ${length} bytes`);
  }
}

/** Throws a TypeError unless the nonce is 12 bytes, and a RangeError unless `out` has room for the result. */
export function requireSealable(
  nonce: Uint8Array,
  length: number,
  out: Uint8Array,
  offset: number,
): void {
  requireBytes("seal", "nonce", nonce, NONCE_LENGTH);
  if (offset < 0 || out.length - offset < length + TAG_LENGTH) {
    throw new RangeError(
      `Cannot seal: ${length + TAG_LENGTH} bytes do not fit at ${offset} of ${out.length}`,
    );
  }
}

/** Throws a RangeError unless HKDF-SHA-256 can give `length` bytes. */
export function requireHkdfLength(length: number): void {
  if (!Number.isInteger(length) || length < 0 || length > HKDF_MAX_LENGTH) {
    throw new RangeError(`Cannot derive key: length is ${length}, limit is ${HKDF_MAX_LENGTH}`);
  }
}

/** Fresh bytes of the system's random source, in pieces that `getRandomValues` takes. */
export function systemRandom(length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(out.subarray(at, Math.min(at + 65_536, length)));
  }
  return out;
}

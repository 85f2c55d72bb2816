/**
 * The primitives that HTX stands on, behind one small interface with two implementations: the runtime's own
 * (`node:crypto` and WebCrypto, where present) and the portable @noble packages.
 *
 * A backend is chosen at its first use by {@linkcode selectCrypto}, and a native primitive is trusted only
 * after a known-answer test. This module is browser compatible.
 *
 * @module
 */

import { ed25519 } from "@noble/curves/ed25519.js";
import { findNodeCrypto } from "./crypto_native.ts";
import { CryptoSelector } from "./crypto_select.ts";

/** Bytes that the library owns: always on a plain `ArrayBuffer`, never shared memory. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** ChaCha20-Poly1305 (RFC 8439) under one key. Nonces are the caller's business: see `core/keys.ts`. */
export interface Aead {
  /** Writes `plaintext.length + 16` bytes (ciphertext, then tag) to `out` at `offset`. `out` and `plaintext` do not overlap. */
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, out: Uint8Array, offset: number): void;
  /** Opens ciphertext-then-tag; a fresh plaintext that aliases nothing, or `undefined` when the tag does not fit. */
  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined;
  /** Overwrites what this object holds of the key, as far as the runtime lets it. */
  wipe(): void;
}

/** An X25519 private key that never leaves the backend. */
export interface DhPrivateKey {
  /** The 32-byte public key. */
  readonly publicKey: Bytes;
  /** X25519 (RFC 7748 §5): the 32-byte shared value, or `undefined` when it is all zero (RFC 7748 §6.1). */
  dh(peerPublicKey: Uint8Array): Bytes | undefined;
  /** Overwrites what this object holds of the key, as far as the runtime lets it. */
  wipe(): void;
}

/** An ML-KEM-768 decapsulation key (FIPS 203). */
export interface KemPrivateKey {
  /** The 1184-byte encapsulation key. */
  readonly publicKey: Bytes;
  /** The 32-byte shared secret of a 1088-byte ciphertext; implicit rejection gives a pseudo-random one. */
  decapsulate(ciphertext: Uint8Array): Promise<Bytes>;
  /** Overwrites what this object holds of the key, as far as the runtime lets it. */
  wipe(): void;
}

/** What an encapsulation gives. */
export interface Encapsulation {
  /** 1088 bytes. */
  readonly ciphertext: Bytes;
  /** 32 bytes. */
  readonly sharedSecret: Bytes;
}

/** The primitives of one implementation. */
export interface CryptoBackend {
  /** Which one it is. */
  readonly name: "native" | "noble";
  /** ChaCha20-Poly1305 under a 32-byte key (copied). */
  chacha20Poly1305(key: Uint8Array): Aead;
  /** SHA-256 of the parts, joined. */
  sha256(...parts: Uint8Array[]): Bytes;
  /** HMAC-SHA-256 of the parts, joined. */
  hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Bytes;
  /** HKDF-SHA-256 (RFC 5869), extract and expand. */
  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes;
  /** A fresh X25519 key, or the one of 32 private bytes. */
  x25519(privateKey?: Uint8Array): DhPrivateKey;
  /** A fresh ML-KEM-768 key, or the one of a 64-byte seed (d, then z). */
  mlKem768(seed?: Uint8Array): Promise<KemPrivateKey>;
  /**
   * Encapsulates to a 1184-byte key; `undefined` when the key fails the modulus check (FIPS 203 §7.2).
   * `messageForTestingOnly` fixes the 32 random bytes.
   */
  mlKem768Encapsulate(
    publicKey: Uint8Array,
    messageForTestingOnly?: Uint8Array,
  ): Promise<Encapsulation | undefined>;
  /** Fills `into` from the system's random source and returns it. */
  randomBytes(length: number): Bytes;
}

/** Which implementation of the primitives to take; see {@linkcode selectCrypto}. */
export type CryptoChoice = "auto" | "native" | "noble";

const selector = /* @__PURE__ */ new CryptoSelector(findNodeCrypto);

/**
 * The primitives to use. `"auto"` takes the runtime's own where they are present and answer a known-answer test
 * rightly, else the @noble packages (whose ML-KEM then still comes from WebCrypto, where that passes its test).
 * `"noble"` is @noble alone.
 *
 * The choice is made once per kind and kept.
 *
 * @throws {HtxError} `UNSUPPORTED` when `"native"` is forced and this runtime has no usable `node:crypto`
 *
 * @example
 * ```ts
 * import { selectCrypto } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const crypto = selectCrypto();
 * const alice = crypto.x25519();
 * const bob = crypto.x25519();
 * assertEquals(alice.dh(bob.publicKey), bob.dh(alice.publicKey));
 * ```
 */
export function selectCrypto(choice: CryptoChoice = "auto"): CryptoBackend {
  return selector.select(choice);
}

/**
 * Whether 32 bytes are the one canonical spelling of a u-coordinate: top bit clear and value below 2^255-19.
 * X25519 itself ignores the top bit and reduces the value (RFC 7748 §5), so whoever uses a public key as an
 * identity or as a replay key checks this first.
 */
export function isCanonicalX25519(publicKey: Uint8Array): boolean {
  if (publicKey.length !== 32) return false;
  // 2^255-19 is ED FF … FF 7F, least significant byte first.
  if (publicKey[31]! !== 0x7f) return publicKey[31]! < 0x7f;
  for (let i = 30; i > 0; i--) {
    if (publicKey[i]! !== 0xff) return true;
  }
  return publicKey[0]! < 0xed;
}

/** Length of an Ed25519 private (seed) or public key (RFC 8032 §5.1.5). */
const ED25519_KEY_LENGTH = 32;
/** Length of an Ed25519 signature (RFC 8032 §5.1.6). */
const ED25519_SIGNATURE_LENGTH = 64;

/**
 * Verifies an Ed25519 signature strictly: canonical encodings only, no public key of small order, no ZIP-215
 * leniency. Never throws: whatever is malformed does not verify.
 */
export function ed25519Verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== ED25519_SIGNATURE_LENGTH || publicKey.length !== ED25519_KEY_LENGTH) return false;
  try {
    if (ed25519.Point.fromBytes(publicKey, false).isSmallOrder()) return false;
    return ed25519.verify(signature, message, publicKey, { zip215: false });
  } catch {
    return false;
  }
}

/**
 * The 64-byte Ed25519 signature (RFC 8032 §5.1.6) of `message` under a 32-byte private key.
 *
 * @throws {TypeError} when the private key is not 32 bytes
 */
export function ed25519Sign(message: Uint8Array, privateKey: Uint8Array): Bytes {
  requireLength("sign", "private key", privateKey, ED25519_KEY_LENGTH);
  return new Uint8Array(ed25519.sign(message, privateKey));
}

/**
 * The 32-byte public key of a 32-byte Ed25519 private key (RFC 8032 §5.1.5).
 *
 * @throws {TypeError} when the private key is not 32 bytes
 */
export function ed25519PublicKey(privateKey: Uint8Array): Bytes {
  requireLength("derive public key", "private key", privateKey, ED25519_KEY_LENGTH);
  return new Uint8Array(ed25519.getPublicKey(privateKey));
}

function requireLength(verb: string, what: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new TypeError(`Cannot ${verb}: ${what} is ${bytes.length} bytes, not ${length}`);
  }
}

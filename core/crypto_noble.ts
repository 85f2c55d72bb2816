/**
 * The portable backend: the @noble packages. It is also the reference that the native one is compared with.
 * This module is browser compatible.
 *
 * @module
 */

import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import type { Aead, Bytes, CryptoBackend, DhPrivateKey, Encapsulation, KemPrivateKey } from "./crypto.ts";
import {
  DH_LENGTH,
  KEM_CIPHERTEXT_LENGTH,
  KEM_MESSAGE_LENGTH,
  KEM_PUBLIC_KEY_LENGTH,
  KEM_SEED_LENGTH,
  KEY_LENGTH,
  NONCE_LENGTH,
  requireBytes,
  requireHkdfLength,
  requireSealable,
  systemRandom,
  TAG_LENGTH,
} from "./crypto_limits.ts";
import { webCryptoKem } from "./crypto_webkem.ts";

/** Options of {@linkcode NobleCrypto}. */
export interface NobleCryptoOptions {
  /** Whether ML-KEM comes from WebCrypto where that is present and passes its test. @default {false} */
  webCryptoKem?: boolean | undefined;
}

/** {@linkcode CryptoBackend} over the @noble packages. */
export class NobleCrypto implements CryptoBackend {
  /** @inheritdoc */
  readonly name = "noble";
  readonly #webCryptoKem: boolean;

  /** Makes the backend; it holds no state besides its options. */
  constructor(options: NobleCryptoOptions = {}) {
    this.#webCryptoKem = options.webCryptoKem ?? false;
  }

  /** @inheritdoc */
  chacha20Poly1305(key: Uint8Array): Aead {
    requireBytes("make cipher", "key", key, KEY_LENGTH);
    return new NobleAead(key);
  }

  /** @inheritdoc */
  sha256(...parts: Uint8Array[]): Bytes {
    const hash = sha256.create();
    for (const part of parts) hash.update(part);
    return hash.digest();
  }

  /** @inheritdoc */
  hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
    const mac = hmac.create(sha256, key);
    for (const part of parts) mac.update(part);
    return mac.digest();
  }

  /** @inheritdoc */
  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes {
    requireHkdfLength(length);
    return nobleHkdf(ikm, salt, info, length);
  }

  /** @inheritdoc */
  x25519(privateKey?: Uint8Array): DhPrivateKey {
    if (privateKey === undefined) return new NobleDhKey(systemRandom(DH_LENGTH));
    requireBytes("make X25519 key", "private key", privateKey, DH_LENGTH);
    return new NobleDhKey(new Uint8Array(privateKey));
  }

  /** @inheritdoc */
  async mlKem768(seed?: Uint8Array): Promise<KemPrivateKey> {
    if (seed !== undefined) requireBytes("make ML-KEM key", "seed", seed, KEM_SEED_LENGTH);
    const web = this.#webCryptoKem ? await webCryptoKem() : undefined;
    return await web?.generate(seed) ?? nobleKemKey(seed);
  }

  /** @inheritdoc */
  async mlKem768Encapsulate(
    publicKey: Uint8Array,
    messageForTestingOnly?: Uint8Array,
  ): Promise<Encapsulation | undefined> {
    if (this.#webCryptoKem && messageForTestingOnly === undefined) {
      requireBytes("encapsulate", "public key", publicKey, KEM_PUBLIC_KEY_LENGTH);
      const made = await (await webCryptoKem())?.encapsulate(publicKey);
      if (made !== undefined) return made;
    }
    return nobleEncapsulate(publicKey, messageForTestingOnly);
  }

  /** @inheritdoc */
  randomBytes(length: number): Bytes {
    return systemRandom(length);
  }
}

class NobleAead implements Aead {
  #key: Bytes | undefined;

  constructor(key: Uint8Array) {
    this.#key = new Uint8Array(key);
  }

  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, out: Uint8Array, offset: number): void {
    requireSealable(nonce, plaintext.length, out, offset);
    const target = out.subarray(offset, offset + plaintext.length + TAG_LENGTH);
    chacha20poly1305(live(this.#key), nonce, aad).encrypt(plaintext, target);
  }

  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined {
    requireBytes("open", "nonce", nonce, NONCE_LENGTH);
    const key = live(this.#key);
    if (sealed.length < TAG_LENGTH) return undefined;
    try {
      return chacha20poly1305(key, nonce, aad).decrypt(sealed);
    } catch {
      return undefined; // lengths were checked above: only the tag is left to be wrong
    }
  }

  wipe(): void {
    this.#key?.fill(0);
    this.#key = undefined;
  }
}

class NobleDhKey implements DhPrivateKey {
  readonly publicKey: Bytes;
  #key: Bytes | undefined;

  /** Takes `key` over: it is zeroed by `wipe()`. */
  constructor(key: Bytes) {
    this.#key = key;
    this.publicKey = x25519.getPublicKey(key);
  }

  dh(peerPublicKey: Uint8Array): Bytes | undefined {
    requireBytes("make shared value", "public key", peerPublicKey, DH_LENGTH);
    const key = live(this.#key);
    try {
      return x25519.getSharedSecret(key, peerPublicKey);
    } catch {
      return undefined; // RFC 7748 §6.1: the all-zero value
    }
  }

  wipe(): void {
    this.#key?.fill(0);
    this.#key = undefined;
  }
}

/** HKDF-SHA-256 in JavaScript; the length was checked. */
export function nobleHkdf(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes {
  return hkdf(sha256, ikm, salt, info, length);
}

/** An ML-KEM-768 key in JavaScript, fresh or from its seed. */
export function nobleKemKey(seed?: Uint8Array): KemPrivateKey {
  const { publicKey, secretKey } = ml_kem768.keygen(seed);
  return new NobleKemKey(publicKey, secretKey);
}

/** Encapsulation in JavaScript; `undefined` when the key fails the modulus check (FIPS 203 §7.2). */
export function nobleEncapsulate(publicKey: Uint8Array, message?: Uint8Array): Encapsulation | undefined {
  requireBytes("encapsulate", "public key", publicKey, KEM_PUBLIC_KEY_LENGTH);
  if (message !== undefined) requireBytes("encapsulate", "message", message, KEM_MESSAGE_LENGTH);
  try {
    const { cipherText, sharedSecret } = ml_kem768.encapsulate(publicKey, message);
    return { ciphertext: cipherText, sharedSecret };
  } catch {
    return undefined;
  }
}

class NobleKemKey implements KemPrivateKey {
  readonly publicKey: Bytes;
  #secretKey: Uint8Array | undefined;

  constructor(publicKey: Bytes, secretKey: Uint8Array) {
    this.publicKey = publicKey;
    this.#secretKey = secretKey;
  }

  decapsulate(ciphertext: Uint8Array): Promise<Bytes> {
    requireBytes("decapsulate", "ciphertext", ciphertext, KEM_CIPHERTEXT_LENGTH);
    return Promise.resolve(ml_kem768.decapsulate(ciphertext, live(this.#secretKey)));
  }

  wipe(): void {
    this.#secretKey?.fill(0);
    this.#secretKey = undefined;
  }
}

function live<T>(key: T | undefined): T {
  if (key === undefined) throw new TypeError("Cannot use key: it was wiped");
  return key;
}

/**
 * A cheaper route for small frames and for the keys of a handshake. A call of `node:crypto` costs some 5 µs whatever its
 * size; libsodium compiled to WebAssembly seals 64 bytes in less than 1 µs, and loses past a kilobyte or two. So the
 * backend that is chosen by itself takes libsodium for what is small once somebody loaded it (`loadSodium` of
 * `core/sodium.ts`, which carriers with sockets call), and the rest stays where it is.
 *
 * @module
 */

import type { Aead, Bytes, CryptoBackend, DhPrivateKey, Encapsulation, KemPrivateKey } from "./crypto.ts";
import { KEY_LENGTH, requireBytes, requireHkdfLength, TAG_LENGTH } from "./crypto_limits.ts";

/** ChaCha20-Poly1305 and HKDF-SHA-256 on short inputs; the key comes with each call and nothing of it is kept. */
export interface SmallCrypto {
  /** The longest plaintext it is worth its while for, in bytes; below 0 it is out of use altogether. */
  readonly maxLength: number;
  /** As {@linkcode Aead.seal}. */
  seal(
    key: Bytes,
    nonce: Uint8Array,
    aad: Uint8Array,
    plaintext: Uint8Array,
    out: Uint8Array,
    offset: number,
  ): void;
  /** As {@linkcode Aead.open}. */
  open(key: Bytes, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined;
  /** As {@linkcode CryptoBackend.hkdfSha256}, with inputs of at most {@linkcode MAX_SMALL_HKDF} bytes and no longer output. */
  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes;
}

/** The longest additional data that a {@linkcode SmallCrypto} takes: a frame's header has 12 bytes. */
export const MAX_SMALL_AAD = 32;

/** The longest input and output of {@linkcode SmallCrypto.hkdfSha256}: two keys of 32 bytes. */
export const MAX_SMALL_HKDF = 64;

let small: SmallCrypto | undefined;

/** Gives it to every {@linkcode SplitCrypto}, those that have keys already too. */
export function useSmallCrypto(crypto: SmallCrypto): void {
  small = crypto;
}

/** Whether there is one. */
export function hasSmallCrypto(): boolean {
  return small !== undefined;
}

/** A backend that goes by the size of the frame. */
export class SplitCrypto implements CryptoBackend {
  /** The name of the backend behind it. */
  readonly name: CryptoBackend["name"];
  readonly #backend: CryptoBackend;

  /** Everything but small frames is `backend`'s. */
  constructor(backend: CryptoBackend) {
    this.#backend = backend;
    this.name = backend.name;
  }

  /** @inheritdoc */
  chacha20Poly1305(key: Uint8Array): Aead {
    requireBytes("make cipher", "key", key, KEY_LENGTH);
    return new SplitAead(this.#backend, key);
  }

  /** @inheritdoc */
  sha256(...parts: Uint8Array[]): Bytes {
    return this.#backend.sha256(...parts);
  }

  /** @inheritdoc */
  hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
    return this.#backend.hmacSha256(key, ...parts);
  }

  /** @inheritdoc */
  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes {
    requireHkdfLength(length);
    if (
      small === undefined || small.maxLength < 0 ||
      Math.max(ikm.length, salt.length, info.length, length) > MAX_SMALL_HKDF
    ) return this.#backend.hkdfSha256(ikm, salt, info, length);
    return small.hkdfSha256(ikm, salt, info, length);
  }

  /** @inheritdoc */
  x25519(privateKey?: Uint8Array): DhPrivateKey {
    return this.#backend.x25519(privateKey);
  }

  /** @inheritdoc */
  mlKem768(seed?: Uint8Array): Promise<KemPrivateKey> {
    return this.#backend.mlKem768(seed);
  }

  /** @inheritdoc */
  mlKem768Encapsulate(
    publicKey: Uint8Array,
    messageForTestingOnly?: Uint8Array,
  ): Promise<Encapsulation | undefined> {
    return this.#backend.mlKem768Encapsulate(publicKey, messageForTestingOnly);
  }

  /** @inheritdoc */
  randomBytes(length: number): Bytes {
    return this.#backend.randomBytes(length);
  }
}

class SplitAead implements Aead {
  readonly #backend: CryptoBackend;
  #key: Bytes | undefined;
  /** Made for the first frame that is not small: a key of a handshake never sees one. */
  #large: Aead | undefined;

  constructor(backend: CryptoBackend, key: Uint8Array) {
    this.#backend = backend;
    this.#key = new Uint8Array(key);
  }

  #forLarge(): Aead {
    if (this.#key === undefined) throw new TypeError("Cannot use key: it was wiped");
    return this.#large ??= this.#backend.chacha20Poly1305(this.#key);
  }

  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, out: Uint8Array, offset: number): void {
    if (
      small === undefined || this.#key === undefined || plaintext.length > small.maxLength ||
      aad.length > MAX_SMALL_AAD || nonce.length !== 12 || offset + plaintext.length + TAG_LENGTH > out.length
    ) return this.#forLarge().seal(nonce, aad, plaintext, out, offset);
    small.seal(this.#key, nonce, aad, plaintext, out, offset);
  }

  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined {
    if (
      small === undefined || this.#key === undefined || sealed.length > small.maxLength + TAG_LENGTH ||
      sealed.length < TAG_LENGTH || aad.length > MAX_SMALL_AAD || nonce.length !== 12
    ) return this.#forLarge().open(nonce, aad, sealed);
    return small.open(this.#key, nonce, aad, sealed);
  }

  wipe(): void {
    this.#key?.fill(0);
    this.#key = undefined;
    this.#large?.wipe();
  }
}

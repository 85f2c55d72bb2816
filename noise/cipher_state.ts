/**
 * CipherState of Noise §5.1: one key and its counter. This module is browser compatible.
 *
 * @module
 */

import type { Aead, Bytes, CryptoBackend } from "../core/mod.ts";

/** Noise §11.1, §12.3: the tag of ChaChaPoly. */
const TAG_LENGTH = 16;
const NONCE_LENGTH = 12;

/**
 * A ChaCha20-Poly1305 key with its nonce counter. The counter moves after success only: a forged message changes
 * nothing, and the true one still opens, once.
 */
export class CipherState {
  readonly #aead: Aead;
  readonly #nonce: Bytes = new Uint8Array(NONCE_LENGTH);
  #n = 0;

  /** `key` is 32 bytes and is copied. */
  constructor(key: Uint8Array, crypto: CryptoBackend) {
    this.#aead = crypto.chacha20Poly1305(key);
  }

  /** The counter that the next message takes. */
  get n(): number {
    return this.#n;
  }

  /**
   * Noise SetNonce(): goes on at another counter.
   *
   * @throws {RangeError} when `n` is no integer of 0..2^53-1
   */
  setNonce(n: number): void {
    if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`Cannot set nonce: ${n} is out of range`);
    this.#n = n;
  }

  /**
   * Noise EncryptWithAd(): ciphertext, then tag.
   *
   * @throws {RangeError} when the counter is used up
   */
  encryptWithAd(ad: Uint8Array, plaintext: Uint8Array): Bytes {
    const out = new Uint8Array(plaintext.length + TAG_LENGTH);
    this.#aead.seal(this.#currentNonce(), ad, plaintext, out, 0);
    this.#n++;
    return out;
  }

  /**
   * Noise DecryptWithAd(): the plaintext, or `undefined` when the tag does not fit.
   *
   * @throws {RangeError} when the counter is used up
   */
  decryptWithAd(ad: Uint8Array, ciphertext: Uint8Array): Bytes | undefined {
    const plaintext = this.#aead.open(this.#currentNonce(), ad, ciphertext);
    if (plaintext !== undefined) this.#n++;
    return plaintext;
  }

  /** Overwrites the key, as far as the runtime lets it; every later use throws. */
  wipe(): void {
    this.#aead.wipe();
  }

  /** Noise §12.3: "32 bits of zeros followed by little-endian encoding of n". */
  #currentNonce(): Bytes {
    // Noise §5.1 ends at 2^64-1; here the end is where numbers stop being exact. It never wraps (e-46).
    if (this.#n >= Number.MAX_SAFE_INTEGER) throw new RangeError("Cannot use key: its nonces are used up");
    const view = new DataView(this.#nonce.buffer);
    view.setUint32(4, this.#n % 0x1_0000_0000, true);
    view.setUint32(8, Math.floor(this.#n / 0x1_0000_0000), true);
    return this.#nonce;
  }
}

/**
 * libsodium, compiled to WebAssembly, for small frames and short keys. In a module of its own so that a bundle for
 * browsers carries it only when asked to: it is some 300 KB.
 *
 * @module
 */

import { property } from "./_property.ts";
import type { Bytes } from "./crypto.ts";
import { answersKnown } from "./crypto_kat.ts";
import { TAG_LENGTH } from "./crypto_limits.ts";
import { NobleCrypto } from "./crypto_noble.ts";
import {
  hasSmallCrypto,
  MAX_SMALL_AAD,
  MAX_SMALL_HKDF,
  type SmallCrypto,
  SplitCrypto,
  useSmallCrypto,
} from "./crypto_small.ts";

/** Where `node:crypto` catches up, in bytes of plaintext (measured: see the benchmarks). */
const MAX_LENGTH = 1024;

let loading: Promise<boolean> | undefined;

/**
 * Loads libsodium for small frames and short keys, once; `false` where this runtime cannot, which costs speed and
 * nothing else. It is trusted after the known-answer test of all backends. TCP, TLS and QUIC carriers call this by
 * themselves.
 *
 * @example
 * ```ts
 * import { loadSodium } from "@betanet/htx/core";
 *
 * const faster: boolean = await loadSodium();
 * ```
 */
export function loadSodium(): Promise<boolean> {
  return loading ??= load();
}

async function load(): Promise<boolean> {
  try {
    const module: unknown = await import("libsodium");
    const create = property(module, "default");
    if (typeof create !== "function") return false;
    const sodium: unknown = await create();
    if (!isSodium(sodium)) return false;
    const small = new SodiumCrypto(sodium);
    useSmallCrypto(small);
    // Through the same wrapper that will use it. A wrong answer takes it out of use for good.
    if (answersKnown(new SplitCrypto(new NobleCrypto()))) return hasSmallCrypto();
    small.maxLength = -1;
    return false;
  } catch {
    return false; // not installed, or no WebAssembly: an optional part
  }
}

type Seal = (
  ciphertext: number,
  ciphertextLength: number,
  message: number,
  messageLength: number,
  messageLengthHigh: number,
  aad: number,
  aadLength: number,
  aadLengthHigh: number,
  secretNonce: number,
  nonce: number,
  key: number,
) => number;

type Open = (
  message: number,
  messageLength: number,
  secretNonce: number,
  ciphertext: number,
  ciphertextLength: number,
  ciphertextLengthHigh: number,
  aad: number,
  aadLength: number,
  aadLengthHigh: number,
  nonce: number,
  key: number,
) => number;

type Extract = (prk: number, salt: number, saltLength: number, ikm: number, ikmLength: number) => number;

type Expand = (out: number, outLength: number, info: number, infoLength: number, prk: number) => number;

/** What is used of the raw module: its memory, and functions on addresses in it. */
interface Sodium {
  readonly HEAPU8: Uint8Array;
  readonly _malloc: (length: number) => number;
  readonly _crypto_aead_chacha20poly1305_ietf_encrypt: Seal;
  readonly _crypto_aead_chacha20poly1305_ietf_decrypt: Open;
  readonly _crypto_kdf_hkdf_sha256_extract: Extract;
  readonly _crypto_kdf_hkdf_sha256_expand: Expand;
}

const FUNCTIONS = [
  "_malloc",
  "_crypto_aead_chacha20poly1305_ietf_encrypt",
  "_crypto_aead_chacha20poly1305_ietf_decrypt",
  "_crypto_kdf_hkdf_sha256_extract",
  "_crypto_kdf_hkdf_sha256_expand",
];

function isSodium(value: unknown): value is Sodium {
  return property(value, "HEAPU8") instanceof Uint8Array &&
    FUNCTIONS.every((name) => typeof property(value, name) === "function");
}

class SodiumCrypto implements SmallCrypto {
  maxLength = MAX_LENGTH;
  readonly #sodium: Sodium;
  readonly #key: number;
  readonly #nonce: number;
  readonly #aad: number;
  readonly #in: number;
  readonly #out: number;

  constructor(sodium: Sodium) {
    this.#sodium = sodium;
    const room = MAX_LENGTH + TAG_LENGTH;
    this.#key = sodium._malloc(32 + 16 + MAX_SMALL_AAD + 2 * room);
    this.#nonce = this.#key + 32;
    this.#aad = this.#nonce + 16;
    this.#in = this.#aad + MAX_SMALL_AAD;
    this.#out = this.#in + room;
  }

  seal(
    key: Bytes,
    nonce: Uint8Array,
    aad: Uint8Array,
    plaintext: Uint8Array,
    out: Uint8Array,
    offset: number,
  ): void {
    const sodium = this.#sodium;
    const heap = sodium.HEAPU8;
    const { length } = plaintext;
    this.#set(heap, key, nonce, aad, plaintext);
    sodium._crypto_aead_chacha20poly1305_ietf_encrypt(
      this.#out,
      0,
      this.#in,
      length,
      0,
      this.#aad,
      aad.length,
      0,
      0,
      this.#nonce,
      this.#key,
    );
    out.set(heap.subarray(this.#out, this.#out + length + TAG_LENGTH), offset);
    this.#wipe(heap, this.#in, length);
  }

  open(key: Bytes, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined {
    const sodium = this.#sodium;
    const heap = sodium.HEAPU8;
    const length = sealed.length - TAG_LENGTH;
    this.#set(heap, key, nonce, aad, sealed);
    const result = sodium._crypto_aead_chacha20poly1305_ietf_decrypt(
      this.#out,
      0,
      0,
      this.#in,
      sealed.length,
      0,
      this.#aad,
      aad.length,
      0,
      this.#nonce,
      this.#key,
    );
    const plaintext = result === 0 ? new Uint8Array(heap.subarray(this.#out, this.#out + length)) : undefined;
    this.#wipe(heap, this.#out, length);
    return plaintext;
  }

  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes {
    const sodium = this.#sodium;
    const heap = sodium.HEAPU8;
    const prk = this.#key;
    const ikmAt = this.#in;
    const saltAt = ikmAt + MAX_SMALL_HKDF;
    const infoAt = saltAt + MAX_SMALL_HKDF;
    const out = infoAt + MAX_SMALL_HKDF;
    heap.set(ikm, ikmAt);
    heap.set(salt, saltAt);
    heap.set(info, infoAt);
    sodium._crypto_kdf_hkdf_sha256_extract(prk, saltAt, salt.length, ikmAt, ikm.length);
    sodium._crypto_kdf_hkdf_sha256_expand(out, length, infoAt, info.length, prk);
    const okm = new Uint8Array(heap.subarray(out, out + length));
    this.#wipe(heap, this.#in, 4 * MAX_SMALL_HKDF);
    return okm;
  }

  #set(heap: Uint8Array, key: Bytes, nonce: Uint8Array, aad: Uint8Array, input: Uint8Array): void {
    heap.set(key, this.#key);
    heap.set(nonce, this.#nonce);
    heap.set(aad, this.#aad);
    heap.set(input, this.#in);
  }

  /** The key and the plaintext do not stay in memory that every connection of the process shares. */
  #wipe(heap: Uint8Array, plaintext: number, length: number): void {
    heap.fill(0, this.#key, this.#key + 32);
    heap.fill(0, plaintext, plaintext + length);
  }
}

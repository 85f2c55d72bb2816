/**
 * SymmetricState of Noise §5.2: the chaining key, the transcript hash and the cipher of the moment.
 * This module is browser compatible.
 *
 * @module
 */

import { type Bytes, type CryptoBackend, utf8 } from "../core/mod.ts";
import { CipherState } from "./cipher_state.ts";

const HASH_LENGTH = 32;
const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** What {@linkcode hashOfName} came to; there are as many as patterns. */
const hashedNames = /* @__PURE__ */ new Map<string, Bytes>();

/** The two keys of Noise Split(). */
export interface SplitKeys {
  /** Key of the initiator's transport messages, 32 bytes. */
  readonly k1: Bytes;
  /** Key of the responder's transport messages, 32 bytes. */
  readonly k2: Bytes;
}

/** Everything that is hashed and mixed while a handshake runs. */
export class SymmetricState {
  readonly #crypto: CryptoBackend;
  #chainingKey: Bytes;
  #hash: Bytes;
  #cipher: CipherState | undefined;

  /** Noise InitializeSymmetric(protocol_name). */
  constructor(protocol: string, crypto: CryptoBackend) {
    this.#crypto = crypto;
    this.#hash = new Uint8Array(hashOfName(protocol, crypto));
    this.#chainingKey = new Uint8Array(this.#hash);
  }

  /** The transcript hash so far, a copy; public. */
  get hash(): Bytes {
    return new Uint8Array(this.#hash);
  }

  /** Noise MixKey(). The input is the caller's to wipe. */
  mixKey(inputKeyMaterial: Uint8Array): void {
    const out = this.#hkdf(inputKeyMaterial); // both halves are overwritten in the end
    const chainingKey = out.subarray(0, HASH_LENGTH);
    const key = out.subarray(HASH_LENGTH);
    this.#chainingKey.fill(0);
    this.#chainingKey = chainingKey;
    this.#cipher?.wipe();
    this.#cipher = new CipherState(key, this.#crypto);
    key.fill(0);
  }

  /** Noise MixHash(). */
  mixHash(data: Uint8Array): void {
    this.#hash = this.#crypto.sha256(this.#hash, data);
  }

  /** Noise EncryptAndHash(): before the first key the bytes stay as they are. */
  encryptAndHash(plaintext: Uint8Array): Bytes {
    const out = this.#cipher?.encryptWithAd(this.#hash, plaintext) ?? new Uint8Array(plaintext);
    this.mixHash(out);
    return out;
  }

  /** Noise DecryptAndHash(): `undefined`, and nothing moved, when the tag does not fit. */
  decryptAndHash(data: Uint8Array): Bytes | undefined {
    const plaintext = this.#cipher === undefined
      ? new Uint8Array(data)
      : this.#cipher.decryptWithAd(this.#hash, data);
    if (plaintext !== undefined) this.mixHash(data);
    return plaintext;
  }

  /** How many bytes {@linkcode encryptAndHash} adds at the moment: 16 with a key, else none. */
  get overhead(): 0 | 16 {
    return this.#cipher === undefined ? 0 : 16;
  }

  /** Noise Split(). The state is of no use afterwards: its secrets are overwritten. */
  split(): SplitKeys {
    const out = this.#hkdf(EMPTY);
    const keys = { k1: out.slice(0, HASH_LENGTH), k2: out.slice(HASH_LENGTH) };
    out.fill(0);
    this.wipe();
    return keys;
  }

  /** Overwrites the chaining key and the cipher's key. */
  wipe(): void {
    this.#chainingKey.fill(0);
    this.#cipher?.wipe();
  }

  /** Noise §4.3 HKDF(chaining_key, ikm, 2), which is RFC 5869 with ck as salt, an empty info and 64 bytes. */
  #hkdf(inputKeyMaterial: Uint8Array): Bytes {
    return this.#crypto.hkdfSha256(inputKeyMaterial, this.#chainingKey, EMPTY, 2 * HASH_LENGTH);
  }
}

/** Noise §5.2: the name itself with zeros behind it, or its hash where it is longer. */
function hashOfName(protocol: string, crypto: CryptoBackend): Bytes {
  let hash = hashedNames.get(protocol);
  if (hash === undefined) {
    const name = utf8(protocol);
    if (name.length > HASH_LENGTH) {
      hash = crypto.sha256(name);
    } else {
      hash = new Uint8Array(HASH_LENGTH);
      hash.set(name);
    }
    hashedNames.set(protocol, hash);
  }
  return hash;
}

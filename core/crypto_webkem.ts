/**
 * ML-KEM-768 of WebCrypto, for whichever backend wants it: found by its behaviour, never by its name alone.
 * This module is browser compatible.
 *
 * @module
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { timingSafeEqual, toHex } from "./bytes.ts";
import type { Bytes, Encapsulation, KemPrivateKey } from "./crypto.ts";
import { KEM_KAT } from "./crypto_kat.ts";
import { KEM_CIPHERTEXT_LENGTH, requireBytes } from "./crypto_limits.ts";

const ALGORITHM = "ML-KEM-768";

/** The part of SubtleCrypto (WICG "Modern Algorithms in the Web Cryptography API") that is used here. */
interface KemSubtle {
  importKey(
    format: "raw-seed" | "raw-public",
    data: Bytes,
    algorithm: string,
    extractable: boolean,
    usages: string[],
  ): Promise<CryptoKey>;
  exportKey(format: "raw-public", key: CryptoKey): Promise<ArrayBuffer>;
  generateKey(algorithm: string, extractable: boolean, usages: string[]): Promise<CryptoKeyPair>;
  getPublicKey(key: CryptoKey, usages: string[]): Promise<CryptoKey>;
  encapsulateBits(
    algorithm: string,
    key: CryptoKey,
  ): Promise<{ sharedKey: ArrayBuffer; ciphertext: ArrayBuffer }>;
  decapsulateBits(algorithm: string, key: CryptoKey, ciphertext: Bytes): Promise<ArrayBuffer>;
}

/** ML-KEM-768 of WebCrypto. */
export interface WebCryptoKem {
  /** A fresh key, or the one of a 64-byte seed. */
  generate(seed?: Uint8Array): Promise<KemPrivateKey>;
  /** `undefined` when WebCrypto refuses the key: the caller lets the portable code say why. */
  encapsulate(publicKey: Uint8Array): Promise<Encapsulation | undefined>;
}

let found: Promise<WebCryptoKem | undefined> | undefined;

/** The runtime's ML-KEM-768 after its known-answer test, which runs once; `undefined` where there is none. */
export function webCryptoKem(): Promise<WebCryptoKem | undefined> {
  return found ??= probeWebCryptoKem(globalThis.crypto?.subtle);
}

/** ML-KEM-768 of this SubtleCrypto after its known-answer test; `undefined` when it lacks it or fails. */
export async function probeWebCryptoKem(subtle: unknown): Promise<WebCryptoKem | undefined> {
  if (!hasKem(subtle)) return undefined;
  const kem = new SubtleKem(subtle);
  try {
    return await passes(kem) ? kem : undefined;
  } catch {
    return undefined; // NotSupportedError, or a draft of the interface that we do not know
  }
}

function hasKem(subtle: unknown): subtle is KemSubtle {
  if (typeof subtle !== "object" || subtle === null) return false;
  return ["encapsulateBits", "decapsulateBits", "getPublicKey"].every((name) =>
    typeof Reflect.get(subtle, name) === "function"
  );
}

/** Key generation from a seed, decapsulation, implicit rejection against known answers; encapsulation against those. */
async function passes(kem: WebCryptoKem): Promise<boolean> {
  const key = await kem.generate(KEM_KAT.seed());
  if (toHex(sha256(key.publicKey)) !== KEM_KAT.publicKeyHash) return false;
  if (toHex(await key.decapsulate(KEM_KAT.ciphertext())) !== KEM_KAT.sharedSecret) return false;
  if (toHex(await key.decapsulate(new Uint8Array(KEM_CIPHERTEXT_LENGTH))) !== KEM_KAT.rejected) return false;
  const made = await kem.encapsulate(key.publicKey);
  if (made === undefined || made.ciphertext.length !== KEM_CIPHERTEXT_LENGTH) return false;
  if (!timingSafeEqual(await key.decapsulate(made.ciphertext), made.sharedSecret)) return false;
  const fresh = await kem.generate();
  const other = await kem.encapsulate(fresh.publicKey);
  return other !== undefined &&
    timingSafeEqual(await fresh.decapsulate(other.ciphertext), other.sharedSecret);
}

class SubtleKem implements WebCryptoKem {
  readonly #subtle: KemSubtle;

  constructor(subtle: KemSubtle) {
    this.#subtle = subtle;
  }

  async generate(seed?: Uint8Array): Promise<KemPrivateKey> {
    const subtle = this.#subtle;
    let privateKey: CryptoKey;
    let publicKey: CryptoKey;
    if (seed === undefined) {
      ({ privateKey, publicKey } = await subtle.generateKey(ALGORITHM, false, [
        "encapsulateBits",
        "decapsulateBits",
      ]));
    } else {
      const copy = new Uint8Array(seed);
      privateKey = await subtle.importKey("raw-seed", copy, ALGORITHM, false, ["decapsulateBits"]);
      copy.fill(0);
      publicKey = await subtle.getPublicKey(privateKey, ["encapsulateBits"]);
    }
    return new SubtleKemKey(
      subtle,
      privateKey,
      new Uint8Array(await subtle.exportKey("raw-public", publicKey)),
    );
  }

  async encapsulate(publicKey: Uint8Array): Promise<Encapsulation | undefined> {
    try {
      const copy = new Uint8Array(publicKey);
      const key = await this.#subtle.importKey("raw-public", copy, ALGORITHM, false, ["encapsulateBits"]);
      const { ciphertext, sharedKey } = await this.#subtle.encapsulateBits(ALGORITHM, key);
      return { ciphertext: new Uint8Array(ciphertext), sharedSecret: new Uint8Array(sharedKey) };
    } catch {
      return undefined;
    }
  }
}

class SubtleKemKey implements KemPrivateKey {
  readonly publicKey: Bytes;
  readonly #subtle: KemSubtle;
  #key: CryptoKey | undefined;

  constructor(subtle: KemSubtle, key: CryptoKey, publicKey: Bytes) {
    this.#subtle = subtle;
    this.#key = key;
    this.publicKey = publicKey;
  }

  async decapsulate(ciphertext: Uint8Array): Promise<Bytes> {
    requireBytes("decapsulate", "ciphertext", ciphertext, KEM_CIPHERTEXT_LENGTH);
    if (this.#key === undefined) throw new TypeError("Cannot use key: it was wiped");
    return new Uint8Array(
      await this.#subtle.decapsulateBits(ALGORITHM, this.#key, new Uint8Array(ciphertext)),
    );
  }

  wipe(): void {
    this.#key = undefined; // the bytes are the runtime's: dropping the handle is all there is
  }
}

/**
 * Static X25519 key pairs: who a peer is. This module is browser compatible.
 *
 * @module
 */

import {
  type Bytes,
  type CryptoBackend,
  type DhPrivateKey,
  fromHex,
  isCanonicalX25519,
  selectCrypto,
  toHex,
} from "../core/mod.ts";

const KEY_LENGTH = 32;
/**
 * What `console.log` asks an object for, in Deno, in Node and in Bun. The first pair gives them to all: a class that is
 * written with them cannot be left out of a bundle.
 */
const INSPECTORS: readonly string[] = ["Deno.customInspect", "nodejs.util.inspect.custom"];

/** Options of {@linkcode KeyPair.generate}. */
export interface KeyPairGenerateOptions {
  /** Where the 32 private bytes come from. @default {the system's random source} */
  random?: ((length: number) => Uint8Array) | undefined;
}

/**
 * A static X25519 key pair. The private half stays inside: no way of printing the object shows it. Only
 * {@linkcode KeyPair.exportPrivateHex} and {@linkcode KeyPair.exportPrivateBytes} give it out.
 *
 * @example
 * ```ts
 * import { KeyPair } from "@betanet/htx/noise";
 * import { assertEquals } from "@std/assert";
 *
 * const pair = KeyPair.generate();
 * const again = KeyPair.fromHex(pair.exportPrivateHex()); // from a file of mode 0600
 * assertEquals(again.publicKey, pair.publicKey);
 * assertEquals(JSON.stringify({ pair }), `{"pair":{"publicKey":"${pair.publicKeyHex}"}}`);
 * ```
 */
export class KeyPair {
  #privateKey: Bytes | undefined;
  readonly #publicKey: Bytes;
  /** One imported key per backend: importing costs more than many a handshake step. */
  readonly #keys = new Map<CryptoBackend, DhPrivateKey>();

  /** Takes the bytes over. */
  private constructor(privateKey: Bytes) {
    this.#privateKey = privateKey;
    this.#publicKey = this.dhKey(selectCrypto()).publicKey;
    for (const name of INSPECTORS) {
      const key = Symbol.for(name);
      if (!Object.hasOwn(KeyPair.prototype, key)) {
        Object.defineProperty(KeyPair.prototype, key, { value: shown });
      }
    }
  }

  /** A fresh pair. */
  static generate(options: KeyPairGenerateOptions = {}): KeyPair {
    const { random } = options;
    if (random !== undefined) return KeyPair.fromBytes(random(KEY_LENGTH));
    return new KeyPair(crypto.getRandomValues(new Uint8Array(KEY_LENGTH))); // no copy of them stays behind
  }

  /**
   * The pair of 32 private bytes, which are copied.
   *
   * @throws {TypeError} when it is not 32 bytes
   */
  static fromBytes(privateKey: Uint8Array): KeyPair {
    if (!(privateKey instanceof Uint8Array) || privateKey.length !== KEY_LENGTH) {
      throw new TypeError(
        `Cannot make key pair: the private key must be a Uint8Array of ${KEY_LENGTH} bytes`,
      );
    }
    return new KeyPair(new Uint8Array(privateKey));
  }

  /**
   * The pair of 64 hexadecimal digits: what {@linkcode KeyPair.exportPrivateHex} gave.
   *
   * @throws {TypeError} when it is anything else
   */
  static fromHex(privateKey: string): KeyPair {
    if (typeof privateKey !== "string" || !/^[0-9a-fA-F]{64}$/.test(privateKey)) {
      throw new TypeError(
        `Cannot make key pair: the private key must be ${2 * KEY_LENGTH} hexadecimal digits`,
      );
    }
    return new KeyPair(fromHex(privateKey));
  }

  /** The 32-byte public key, a copy. */
  get publicKey(): Bytes {
    return new Uint8Array(this.#publicKey);
  }

  /** The public key as 64 lower-case hexadecimal digits: what peers pin. */
  get publicKeyHex(): string {
    return toHex(this.#publicKey);
  }

  /** First 16 hexadecimal digits of the SHA-256 of the public key: for people to compare, and for logs. */
  get fingerprint(): string {
    return toHex(selectCrypto().sha256(this.#publicKey).subarray(0, 8));
  }

  /**
   * The private half as 64 lower-case hexadecimal digits. Whoever holds it is you: keep it in a file of mode
   * 0600 or a secret store, out of logs and repositories.
   *
   * @throws {TypeError} after {@linkcode KeyPair.wipe}
   */
  exportPrivateHex(): string {
    return toHex(this.#live());
  }

  /**
   * The 32 private bytes, a copy that is the caller's to overwrite.
   *
   * @throws {TypeError} after {@linkcode KeyPair.wipe}
   */
  exportPrivateBytes(): Bytes {
    return new Uint8Array(this.#live());
  }

  /**
   * The key as `crypto` uses it, imported once and kept. It belongs to the pair: do not wipe it.
   *
   * @throws {TypeError} after {@linkcode KeyPair.wipe}
   */
  dhKey(crypto: CryptoBackend): DhPrivateKey {
    let key = this.#keys.get(crypto);
    if (key === undefined) {
      key = crypto.x25519(this.#live());
      this.#keys.set(crypto, key);
    }
    return key;
  }

  /** Overwrites the private half, as far as the runtime lets it; every later use throws. */
  wipe(): void {
    this.#privateKey?.fill(0);
    this.#privateKey = undefined;
    for (const key of this.#keys.values()) key.wipe();
    this.#keys.clear();
  }

  /** What `JSON.stringify` shows: the public half. */
  toJSON(): { publicKey: string } {
    return { publicKey: this.publicKeyHex };
  }

  /** `KeyPair(<public key>)`: what `console.log` shows, too. */
  toString(): string {
    return `KeyPair(${this.publicKeyHex})`;
  }

  #live(): Bytes {
    if (this.#privateKey === undefined) throw new TypeError("Cannot use key pair: it was wiped");
    return this.#privateKey;
  }
}

function shown(this: KeyPair): string {
  return this.toString();
}

/**
 * The 32 bytes of a public key given as 64 hexadecimal digits, checked as an identity.
 *
 * @throws {TypeError} when the text is anything else, or no canonical X25519 key
 */
export function publicKeyFromHex(text: string): Bytes {
  if (typeof text !== "string" || !/^[0-9a-fA-F]{64}$/.test(text)) {
    throw new TypeError(`Cannot read public key: it must be ${2 * KEY_LENGTH} hexadecimal digits`);
  }
  const publicKey = fromHex(text);
  requirePublicKey("read public key", publicKey);
  return publicKey;
}

/** Throws a TypeError unless the value is a canonical X25519 public key (HTX 1.1 §1: "a static key is an identity"). */
export function requirePublicKey(verb: string, publicKey: unknown): asserts publicKey is Uint8Array {
  if (!(publicKey instanceof Uint8Array) || publicKey.length !== KEY_LENGTH) {
    const hint = typeof publicKey === "string" ? "; publicKeyFromHex() makes one of hexadecimal digits" : "";
    throw new TypeError(
      `Cannot ${verb}: the peer's public key must be a Uint8Array of ${KEY_LENGTH} bytes${hint}`,
    );
  }
  if (!isCanonicalX25519(publicKey)) {
    throw new TypeError(`Cannot ${verb}: the peer's public key is not a canonical X25519 encoding`);
  }
}

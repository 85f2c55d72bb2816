/**
 * The runtime's own primitives: `node:crypto` for everything synchronous, WebCrypto for ML-KEM.
 *
 * `node:crypto` is reached through `process.getBuiltinModule`, which asks no permission and leaves bundlers
 * alone. This module is browser compatible: where there is no such thing, {@linkcode findNodeCrypto} says so.
 *
 * @module
 */

import type * as NodeCrypto from "node:crypto";
import { releaseBytes, timingSafeEqual } from "./bytes.ts";
import type { Aead, Bytes, CryptoBackend, DhPrivateKey, Encapsulation, KemPrivateKey } from "./crypto.ts";
import {
  DH_LENGTH,
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
import { nobleEncapsulate, nobleHkdf, nobleKemKey } from "./crypto_noble.ts";
import { webCryptoKem } from "./crypto_webkem.ts";

/** The `node:crypto` module. */
export type NodeCryptoModule = typeof NodeCrypto;

/** `node:crypto` of this runtime, or `undefined` where there is none. */
export function findNodeCrypto(): NodeCryptoModule | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(id: string): unknown } };
  try {
    return process?.getBuiltinModule?.("node:crypto") as NodeCryptoModule | undefined;
  } catch {
    return undefined;
  }
}

const CIPHER = "chacha20-poly1305";
const CIPHER_OPTIONS = /* @__PURE__ */ Object.freeze({ authTagLength: TAG_LENGTH });

/** `hkdfSync` of Node takes no longer info; RFC 5869 has no such limit. */
const MAX_HKDF_INFO = 1024;

/** The PKCS #8 wrapping of a raw X25519 private key (RFC 8410 §7). */
const PKCS8_PREFIX = [
  0x30,
  0x2e,
  0x02,
  0x01,
  0x00,
  0x30,
  0x05,
  0x06,
  0x03,
  0x2b,
  0x65,
  0x6e,
  0x04,
  0x22,
  0x04,
  0x20,
];
/** The SubjectPublicKeyInfo wrapping of a raw X25519 public key (RFC 8410 §4). */
const SPKI_PREFIX = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];

/** {@linkcode CryptoBackend} over `node:crypto` and WebCrypto. */
export class NativeCrypto implements CryptoBackend {
  /** @inheritdoc */
  readonly name = "native";
  readonly #node: NodeCryptoModule;

  /** Makes the backend; whether it answers rightly is for `selectCrypto` to find out. */
  constructor(node: NodeCryptoModule) {
    this.#node = node;
  }

  /** @inheritdoc */
  chacha20Poly1305(key: Uint8Array): Aead {
    requireBytes("make cipher", "key", key, KEY_LENGTH);
    return new NativeAead(this.#node, key);
  }

  /** @inheritdoc */
  sha256(...parts: Uint8Array[]): Bytes {
    const hash = this.#node.createHash("sha256");
    for (const part of parts) hash.update(part);
    return owned(hash.digest());
  }

  /** @inheritdoc */
  hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
    const mac = this.#node.createHmac("sha256", key);
    for (const part of parts) mac.update(part);
    return owned(mac.digest());
  }

  /** @inheritdoc */
  hkdfSha256(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Bytes {
    requireHkdfLength(length);
    if (info.length > MAX_HKDF_INFO) return nobleHkdf(ikm, salt, info, length);
    return new Uint8Array(this.#node.hkdfSync("sha256", ikm, salt, info, length));
  }

  /** @inheritdoc */
  x25519(privateKey?: Uint8Array): DhPrivateKey {
    const node = this.#node;
    if (privateKey === undefined) {
      const { publicKey, privateKey } = node.generateKeyPairSync("x25519");
      return new NativeDhKey(node, privateKey, rawPublicKey(publicKey));
    }
    requireBytes("make X25519 key", "private key", privateKey, DH_LENGTH);
    const der = new Uint8Array(PKCS8_PREFIX.length + DH_LENGTH);
    der.set(PKCS8_PREFIX);
    der.set(privateKey, PKCS8_PREFIX.length);
    const key = node.createPrivateKey({
      key: der as DerKey,
      format: "der",
      type: "pkcs8",
    });
    der.fill(0);
    return new NativeDhKey(node, key, rawPublicKey(node.createPublicKey(key)));
  }

  /** @inheritdoc */
  async mlKem768(seed?: Uint8Array): Promise<KemPrivateKey> {
    if (seed !== undefined) requireBytes("make ML-KEM key", "seed", seed, KEM_SEED_LENGTH);
    const web = await webCryptoKem();
    return web === undefined ? nobleKemKey(seed) : await web.generate(seed);
  }

  /** @inheritdoc */
  async mlKem768Encapsulate(
    publicKey: Uint8Array,
    messageForTestingOnly?: Uint8Array,
  ): Promise<Encapsulation | undefined> {
    requireBytes("encapsulate", "public key", publicKey, KEM_PUBLIC_KEY_LENGTH);
    if (messageForTestingOnly === undefined) {
      const made = await (await webCryptoKem())?.encapsulate(publicKey);
      if (made !== undefined) return made;
    }
    return nobleEncapsulate(publicKey, messageForTestingOnly); // refuses the modulus before it computes anything
  }

  /** @inheritdoc */
  randomBytes(length: number): Bytes {
    return systemRandom(length);
  }
}

class NativeAead implements Aead {
  readonly #node: NodeCryptoModule;
  #key: Bytes | undefined;

  constructor(node: NodeCryptoModule, key: Uint8Array) {
    this.#node = node;
    this.#key = new Uint8Array(key);
  }

  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, out: Uint8Array, offset: number): void {
    requireSealable(nonce, plaintext.length, out, offset);
    const cipher = this.#node.createCipheriv(CIPHER, live(this.#key), nonce, CIPHER_OPTIONS);
    if (aad.length > 0) cipher.setAAD(aad, { plaintextLength: plaintext.length });
    if (plaintext.length > 0) {
      const ciphertext = cipher.update(plaintext);
      out.set(ciphertext, offset);
      releaseBytes(ciphertext);
    }
    cipher.final(); // RFC 8439 §2.8: a stream cipher, nothing is held back
    out.set(cipher.getAuthTag(), offset + plaintext.length);
  }

  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Bytes | undefined {
    requireBytes("open", "nonce", nonce, NONCE_LENGTH);
    const key = live(this.#key);
    const length = sealed.length - TAG_LENGTH;
    if (length < 0) return undefined;
    const decipher = this.#node.createDecipheriv(CIPHER, key, nonce, CIPHER_OPTIONS);
    decipher.setAuthTag(sealed.subarray(length));
    if (aad.length > 0) decipher.setAAD(aad, { plaintextLength: length });
    const plaintext = length > 0 ? owned(decipher.update(sealed.subarray(0, length))) : new Uint8Array(0);
    try {
      decipher.final();
    } catch {
      plaintext.fill(0); // nothing of what does not verify is handed out
      return undefined;
    }
    return plaintext;
  }

  wipe(): void {
    this.#key?.fill(0);
    this.#key = undefined;
  }
}

class NativeDhKey implements DhPrivateKey {
  readonly publicKey: Bytes;
  readonly #node: NodeCryptoModule;
  #key: NodeCrypto.KeyObject | undefined;

  constructor(node: NodeCryptoModule, key: NodeCrypto.KeyObject, publicKey: Bytes) {
    this.#node = node;
    this.#key = key;
    this.publicKey = publicKey;
  }

  dh(peerPublicKey: Uint8Array): Bytes | undefined {
    requireBytes("make shared value", "public key", peerPublicKey, DH_LENGTH);
    const privateKey = live(this.#key);
    const publicKey = importPublicKey(this.#node, peerPublicKey);
    try {
      const shared = owned(this.#node.diffieHellman({ privateKey, publicKey }));
      return isZero(shared) ? undefined : shared;
    } catch {
      return undefined; // OpenSSL and its kin make the check of RFC 7748 §6.1 themselves
    }
  }

  wipe(): void {
    this.#key = undefined; // the bytes are the runtime's: dropping the handle is all there is
  }
}

/** Raw bytes for an import: the runtimes take any typed array, their types name `Buffer` alone. */
type DerKey = NodeCrypto.PublicKeyInput["key"];

/** DER is the cheapest way in and out: JWK goes through base64. Public keys pass through here, one after another. */
const spki = /* @__PURE__ */ new Uint8Array([...SPKI_PREFIX, ...new Uint8Array(DH_LENGTH)]);

function toSpki(publicKey: Uint8Array): DerKey {
  spki.set(publicKey, SPKI_PREFIX.length);
  return spki as DerKey;
}

/** The public key imported last: a handshake uses the peer's ephemeral one twice in a row. */
let lastImport:
  | { readonly node: NodeCryptoModule; readonly raw: Bytes; readonly key: NodeCrypto.KeyObject }
  | undefined;

function importPublicKey(node: NodeCryptoModule, raw: Uint8Array): NodeCrypto.KeyObject {
  if (lastImport?.node === node && timingSafeEqual(lastImport.raw, raw)) return lastImport.key;
  const key = node.createPublicKey({ key: toSpki(raw), format: "der", type: "spki" });
  lastImport = { node, raw: new Uint8Array(raw), key };
  return key;
}

/** The 32 bytes of a public KeyObject. */
function rawPublicKey(key: NodeCrypto.KeyObject): Bytes {
  return new Uint8Array(key.export({ format: "der", type: "spki" }).subarray(SPKI_PREFIX.length));
}

/** All 32 bytes looked at, whatever they are: the value is secret. */
function isZero(bytes: Uint8Array): boolean {
  let sum = 0;
  for (const byte of bytes) sum |= byte;
  return sum === 0;
}

/** A plain array over memory that is nobody else's. A `Buffer` on a shared pool is copied off it. */
function owned(buffer: Uint8Array): Bytes {
  const { buffer: memory, byteOffset, byteLength } = buffer;
  return memory instanceof ArrayBuffer && memory.byteLength === byteLength
    ? new Uint8Array(memory, byteOffset, byteLength)
    : new Uint8Array(buffer);
}

function live<T>(key: T | undefined): T {
  if (key === undefined) throw new TypeError("Cannot use key: it was wiped");
  return key;
}

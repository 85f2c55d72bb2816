/**
 * Key schedule (HTX 1.1 §2): from the outputs of the handshake to the key of every frame.
 *
 *     k1 ‖ k2 (Noise Split)          h (handshake hash)
 *        │ HKDF-Extract  ◄────────────┤ salt
 *       prk                           │
 *        │ HKDF-Expand-Label "htx inner v1", 64 bytes
 *       K0 = K0c ‖ K0s                │
 *        │                            │
 *       S_0 ── "next", h ──► S_1 ── "next", h ──► S_2 …      one chain a direction
 *        │                    │
 *        ├ AEAD key = S_n     │
 *        └ NS_n = HKDF(S_n, "ns", "", 12);  nonce(i) = NS_n XOR (LE64(i) ‖ LE32(0))
 *
 * @module
 */

import { concat, utf8 } from "./bytes.ts";
import type { Aead, Bytes, CryptoBackend } from "./crypto.ts";

const K0_LENGTH = 64;
const K0_LABEL = "tls13 htx inner v1";
const K0_INFO = /* @__PURE__ */ concat(
  /* @__PURE__ */ new Uint8Array([0, K0_LENGTH, K0_LABEL.length]),
  /* @__PURE__ */ utf8(K0_LABEL),
  /* @__PURE__ */ new Uint8Array(1),
);
const SALT_NS = /* @__PURE__ */ utf8("ns");
const SALT_NEXT = /* @__PURE__ */ utf8("next");
const EMPTY = /* @__PURE__ */ new Uint8Array(0);

const SECRET_LENGTH = 32;
const NONCE_LENGTH = 12;

/** What a finished handshake hands over: the only way to session keys. */
export interface HandshakeSecrets {
  /** First key of Noise Split(), 32 bytes. Overwritten by {@linkcode deriveSessionKeys}. */
  readonly k1: Bytes;
  /** Second key of Noise Split(), 32 bytes. Overwritten by {@linkcode deriveSessionKeys}. */
  readonly k2: Bytes;
  /** The handshake hash, 32 bytes; public. */
  readonly h: Bytes;
}

/** The first secrets of both directions. */
export interface SessionKeys {
  /** K0c, S_0 of client to server: 32 bytes. */
  readonly client: Bytes;
  /** K0s, S_0 of server to client: 32 bytes. */
  readonly server: Bytes;
  /** The handshake hash, which every later secret is bound to; public. */
  readonly handshakeHash: Bytes;
}

/** Derives K0c and K0s (HTX 1.1 §2) and overwrites `k1` and `k2`. */
export function deriveSessionKeys(secrets: HandshakeSecrets, crypto: CryptoBackend): SessionKeys {
  const { k1, k2, h } = secrets;
  const ikm = concat(k1, k2);
  // HKDF-Extract(h, ikm), then HKDF-Expand-Label(prk, "htx inner v1", "", 64): together one HKDF of RFC 5869 whose info
  // is the HkdfLabel of RFC 8446 §7.1 (uint16 length, label, empty context), so that prk never leaves the backend.
  const k0 = crypto.hkdfSha256(ikm, h, K0_INFO, K0_LENGTH);
  const keys = { client: k0.slice(0, 32), server: k0.slice(32), handshakeHash: new Uint8Array(h) };
  for (const secret of [k1, k2, ikm, k0]) secret.fill(0);
  return keys;
}

/** Which way a direction flows. */
export type Direction = "client-to-server" | "server-to-client";

/**
 * The keys of one direction: the only place that touches an AEAD key, its counter and its nonce. Counters only
 * move forward, after success, and a generation ends at {@linkcode TrafficKeys.update}.
 */
export class TrafficKeys {
  /** Frames sealed or opened under the current key: the counter of the next one. */
  counter = 0;
  /** Plaintext bytes sealed or opened under the current key. */
  bytes = 0;
  /** How many KEY_UPDATEs came before the current key. */
  generation = 0;

  readonly #crypto: CryptoBackend;
  readonly #hash: Bytes;
  readonly #half: 0 | 1;
  #secret: Bytes;
  #aead: Aead;
  readonly #nonceBase: Bytes;
  readonly #nonce: Bytes = new Uint8Array(NONCE_LENGTH);

  /** `secret` is S_0 of the direction and is taken over: it is overwritten at the first update. */
  constructor(crypto: CryptoBackend, direction: Direction, secret: Bytes, handshakeHash: Bytes) {
    this.#crypto = crypto;
    this.#hash = handshakeHash;
    this.#half = direction === "client-to-server" ? 0 : 1;
    this.#secret = secret;
    this.#aead = crypto.chacha20Poly1305(secret);
    this.#nonceBase = deriveNonceBase(crypto, secret);
  }

  /** Seals one frame's plaintext into `out` at `offset`: ciphertext, then tag. */
  seal(header: Uint8Array, plaintext: Uint8Array, out: Uint8Array, offset: number): void {
    this.#aead.seal(this.#nextNonce(), header, plaintext, out, offset);
    this.counter++;
    this.bytes += plaintext.length;
  }

  /** Opens one frame; `undefined`, and nothing moved, when it does not authenticate. */
  open(header: Uint8Array, sealed: Uint8Array): Bytes | undefined {
    const plaintext = this.#aead.open(this.#nextNonce(), header, sealed);
    if (plaintext === undefined) return undefined;
    this.counter++;
    this.bytes += plaintext.length;
    return plaintext;
  }

  /** Goes on to the next generation and overwrites the secret of this one. */
  update(): void {
    const out = this.#crypto.hkdfSha256(this.#secret, SALT_NEXT, this.#hash, 2 * SECRET_LENGTH);
    const next = out.slice(this.#half * SECRET_LENGTH, (this.#half + 1) * SECRET_LENGTH);
    out.fill(0);
    this.wipe();
    this.#secret = next;
    this.#aead = this.#crypto.chacha20Poly1305(next);
    this.#nonceBase.set(deriveNonceBase(this.#crypto, next));
    this.counter = 0;
    this.bytes = 0;
    this.generation++;
  }

  /** Overwrites the current secret, as far as the runtime lets it. The object is of no use afterwards. */
  wipe(): void {
    this.#secret.fill(0);
    this.#aead.wipe();
  }

  #nextNonce(): Bytes {
    const nonce = this.#nonce;
    const i = this.counter;
    nonce.set(this.#nonceBase);
    // LE64(i) ‖ LE32(0); i stays far below 2^32: a direction rekeys by 2^16.
    nonce[0]! ^= i;
    nonce[1]! ^= i >>> 8;
    nonce[2]! ^= i >>> 16;
    nonce[3]! ^= i >>> 24;
    return nonce;
  }
}

function deriveNonceBase(crypto: CryptoBackend, secret: Bytes): Bytes {
  return crypto.hkdfSha256(secret, SALT_NS, EMPTY, NONCE_LENGTH);
}

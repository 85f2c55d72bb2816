/**
 * HandshakeState of Noise §5.3, for every pattern of {@linkcode NoisePattern}: a table of tokens that one
 * interpreter walks. No sockets, no clock. This module is browser compatible.
 *
 * @module
 */

import {
  type Bytes,
  concat,
  type CryptoBackend,
  type DhPrivateKey,
  type Encapsulation,
  type HandshakeSecrets,
  HtxError,
  isCanonicalX25519,
  type KemPrivateKey,
} from "../core/mod.ts";
import { type KeyPair, requirePublicKey } from "./key_pair.ts";
import type { NoisePattern, NoiseToken } from "./patterns.ts";
import { SymmetricState } from "./symmetric_state.ts";

/** Which side of a handshake this is. */
export type HandshakeRole = "initiator" | "responder";

/** Options of {@linkcode HandshakeState}. */
export interface HandshakeStateOptions {
  /** Bytes that both sides must agree on (Noise §6). @default {empty} */
  prologue?: Uint8Array | undefined;
  /** The static key of this side; needed where the pattern sends or knows it. */
  keyPair?: KeyPair | undefined;
  /** The peer's static key, where the pattern knows it beforehand: 32 bytes, canonical. */
  remoteStatic?: Uint8Array | undefined;
  /** The 32 private bytes of the ephemeral key, in place of fresh ones. */
  ephemeralForTestingOnly?: Uint8Array | undefined;
  /** The 64-byte seed of the KEM key (FIPS 203: d, then z), in place of a fresh one. */
  kemSeedForTestingOnly?: Uint8Array | undefined;
  /** The 32 random bytes of the encapsulation (FIPS 203: m), in place of fresh ones. */
  kemMessageForTestingOnly?: Uint8Array | undefined;
}

const EMPTY = /* @__PURE__ */ new Uint8Array(0);
const DH_LENGTH = 32;
const KEM_PUBLIC_KEY_LENGTH = 1184;
const KEM_CIPHERTEXT_LENGTH = 1088;
/** Noise §3: "All Noise messages are less than or equal to 65535 bytes in length." */
const MAX_MESSAGE_LENGTH = 65_535;

/** Why a message is refused. Stays inside: it reaches the outside as the `cause` of one error that never differs. */
class Refusal extends Error {
  override readonly name = "Refusal";
}

/** The one message of a failed handshake: it tells nothing apart. */
const FAILED = "Cannot complete handshake: the peer is not who it must be, or something stands between";

/** The error of every failed handshake; `cause` is for logs and holds no secret. */
export function handshakeFailure(cause: unknown): HtxError {
  return new HtxError("HANDSHAKE_FAILED", FAILED, { cause });
}

/**
 * One side of one handshake. The two sides call {@linkcode HandshakeState.writeMessage} and
 * {@linkcode HandshakeState.readMessage} in turn until {@linkcode HandshakeState.finished}, then
 * {@linkcode HandshakeState.split} once.
 *
 * A call out of turn throws a TypeError and changes nothing. A message that fails ends the object: its secrets are
 * overwritten and every later call throws.
 */
export class HandshakeState {
  readonly #pattern: NoisePattern;
  readonly #role: HandshakeRole;
  readonly #crypto: CryptoBackend;
  readonly #options: HandshakeStateOptions;
  readonly #symmetric: SymmetricState;

  readonly #s: DhPrivateKey | undefined;
  #e: DhPrivateKey | undefined;
  #kem: KemPrivateKey | undefined;
  #rs: Bytes | undefined;
  #re: Bytes | undefined;
  #re1: Bytes | undefined;
  /** DH results made while a KEM operation ran on another thread. */
  readonly #ahead = new Map<NoiseToken, Bytes | undefined>();

  #step = 0;
  #state: "idle" | "busy" | "dead" | "split" = "idle";

  /**
   * Noise Initialize().
   *
   * @throws {TypeError} when a key that the pattern needs is missing, or no canonical X25519 key
   */
  constructor(
    pattern: NoisePattern,
    role: HandshakeRole,
    crypto: CryptoBackend,
    options: HandshakeStateOptions = {},
  ) {
    const { prologue = EMPTY, keyPair, remoteStatic } = options;
    this.#pattern = pattern;
    this.#role = role;
    this.#crypto = crypto;
    this.#options = options;

    const mine = role === "initiator" ? 0 : 1;
    const known = { initiator: pattern.initiatorKnown, responder: pattern.responderKnown };
    const sendsStatic = pattern.messages.some((tokens, i) => i % 2 === mine && tokens.includes("s"));
    if ((known[role] || sendsStatic) && keyPair === undefined) {
      throw new TypeError(`Cannot start handshake: ${pattern.protocol} needs a key pair`);
    }
    const remoteKnown = known[role === "initiator" ? "responder" : "initiator"];
    if (remoteKnown) {
      requirePublicKey("start handshake", remoteStatic);
      this.#rs = new Uint8Array(remoteStatic);
    } else if (remoteStatic !== undefined) {
      throw new TypeError(`Cannot start handshake: in ${pattern.protocol} the peer sends its key`);
    }
    this.#s = keyPair?.dhKey(crypto);

    this.#symmetric = new SymmetricState(pattern.protocol, crypto);
    this.#symmetric.mixHash(prologue);
    // Noise §5.3: "The initiator's public keys are always hashed first."
    if (known.initiator) this.#symmetric.mixHash(this.#publicKeyOf("initiator"));
    if (known.responder) this.#symmetric.mixHash(this.#publicKeyOf("responder"));
  }

  /** Whether all messages of the pattern went through. */
  get finished(): boolean {
    return this.#state === "split" || this.#state !== "dead" && this.#step === this.#pattern.messages.length;
  }

  /** Whether the next call is {@linkcode HandshakeState.writeMessage}. */
  get writesNext(): boolean {
    return this.#step < this.#pattern.messages.length &&
      (this.#step % 2 === 0) === (this.#role === "initiator");
  }

  /** The peer's static public key, once it is known; a copy. */
  get remoteStatic(): Bytes | undefined {
    return this.#rs && new Uint8Array(this.#rs);
  }

  /** The peer's ephemeral public key, once it is known; a copy. */
  get remoteEphemeral(): Bytes | undefined {
    return this.#re && new Uint8Array(this.#re);
  }

  /**
   * Noise WriteMessage(): the next message, with `payload` inside.
   *
   * @throws {TypeError} when it is not this side's turn
   * @throws {HtxError} `HANDSHAKE_FAILED` when a key of the peer is of no use
   */
  writeMessage(payload: Uint8Array = EMPTY): Promise<Bytes> {
    this.#begin("write", true);
    return this.#run((tokens) => this.#write(tokens, payload));
  }

  /**
   * Noise ReadMessage(): the payload of the next message.
   *
   * @throws {TypeError} when it is not the peer's turn
   * @throws {HtxError} `HANDSHAKE_FAILED` when the message is not exactly what it must be
   */
  readMessage(message: Uint8Array): Promise<Bytes> {
    this.#begin("read", false);
    return this.#run((tokens) => this.#read(tokens, message));
  }

  /**
   * Noise Split(): the keys of the two directions and the handshake hash. The object ends with it, and its own
   * secrets are overwritten.
   *
   * @throws {TypeError} when the handshake is not finished, or was split before
   */
  split(): HandshakeSecrets {
    if (this.#state !== "idle" || !this.finished) {
      throw new TypeError("Cannot split handshake: it is not finished, or was split before");
    }
    const h = this.#symmetric.hash;
    const { k1, k2 } = this.#symmetric.split();
    this.#end("split");
    return { k1, k2, h };
  }

  /** Overwrites the secrets, as far as the runtime lets it; every later call throws. Idempotent. */
  wipe(): void {
    if (this.#state !== "split") this.#end("dead");
  }

  #begin(verb: "read" | "write", writing: boolean): void {
    if (this.#state === "dead" || this.#state === "split") {
      throw new TypeError(`Cannot ${verb} handshake message: the handshake is over`);
    }
    if (this.#state === "busy") throw new TypeError(`Cannot ${verb} handshake message: another is under way`);
    if (this.#step === this.#pattern.messages.length) {
      throw new TypeError(`Cannot ${verb} handshake message: all of them went through`);
    }
    if (this.writesNext !== writing) {
      throw new TypeError(`Cannot ${verb} handshake message: it is not the turn`);
    }
    this.#state = "busy";
  }

  async #run(work: (tokens: readonly NoiseToken[]) => Promise<Bytes>): Promise<Bytes> {
    try {
      const result = await work(this.#pattern.messages[this.#step]!);
      if (this.#state !== "busy") throw new Refusal("the handshake was given up");
      this.#step++;
      this.#state = "idle";
      return result;
    } catch (cause) {
      this.#end("dead");
      throw handshakeFailure(cause);
    }
  }

  async #write(tokens: readonly NoiseToken[], payload: Uint8Array): Promise<Bytes> {
    const { ephemeralForTestingOnly, kemSeedForTestingOnly, kemMessageForTestingOnly } = this.#options;
    // KEM work may run on another thread: it is started first and awaited where its token stands.
    let kemKey: Promise<KemPrivateKey> | undefined;
    let encapsulation: Promise<Encapsulation | undefined> | undefined;
    if (tokens.includes("e1")) kemKey = quiet(this.#crypto.mlKem768(kemSeedForTestingOnly));
    if (tokens.includes("ekem1")) {
      encapsulation = quiet(this.#crypto.mlKem768Encapsulate(this.#re1!, kemMessageForTestingOnly));
    }
    try {
      const parts: Bytes[] = [];
      for (const token of tokens) {
        switch (token) {
          case "e":
            this.#e = this.#crypto.x25519(ephemeralForTestingOnly);
            this.#symmetric.mixHash(this.#e.publicKey);
            parts.push(this.#e.publicKey);
            break;
          case "s":
            parts.push(this.#symmetric.encryptAndHash(this.#s!.publicKey));
            break;
          case "e1": // Noise HFS §2: "e1: … appends EncryptAndHash(e1.public_key)"
            this.#kem = await kemKey!;
            parts.push(this.#symmetric.encryptAndHash(this.#kem.publicKey));
            break;
          case "ekem1": { // … "EncryptAndHash(ciphertext), then MixKey(kem_output)"
            const made = await encapsulation!;
            if (made === undefined) throw new Refusal("the KEM key fails its modulus check");
            parts.push(this.#symmetric.encryptAndHash(made.ciphertext));
            this.#symmetric.mixKey(made.sharedSecret);
            made.sharedSecret.fill(0);
            break;
          }
          default:
            this.#mixDh(token);
        }
      }
      parts.push(this.#symmetric.encryptAndHash(payload));
      const message = concat(...parts);
      if (message.length > MAX_MESSAGE_LENGTH) throw new Refusal("the message is too long");
      return message;
    } catch (cause) {
      // Nothing goes on behind the back of a caller who was told of a failure.
      (await kemKey?.catch(() => undefined))?.wipe();
      (await encapsulation?.catch(() => undefined))?.sharedSecret.fill(0);
      throw cause;
    }
  }

  async #read(tokens: readonly NoiseToken[], message: Uint8Array): Promise<Bytes> {
    if (message.length > MAX_MESSAGE_LENGTH) throw new Refusal("the message is too long");
    let at = 0;
    const take = (length: number): Uint8Array => {
      if (message.length - at < length) throw new Refusal("the message is too short");
      return message.subarray(at, at += length);
    };
    const open = (length: number): Bytes => {
      const plaintext = this.#symmetric.decryptAndHash(take(length + this.#symmetric.overhead));
      if (plaintext === undefined) throw new Refusal("the message does not open");
      return plaintext;
    };
    for (const token of tokens) {
      switch (token) {
        case "e":
          this.#re = new Uint8Array(take(DH_LENGTH));
          this.#symmetric.mixHash(this.#re);
          break;
        case "s": {
          const key = open(DH_LENGTH);
          if (!isCanonicalX25519(key)) throw new Refusal("the static key is not canonical");
          this.#rs = key;
          break;
        }
        case "e1":
          this.#re1 = open(KEM_PUBLIC_KEY_LENGTH);
          break;
        case "ekem1": {
          const opened = quiet(this.#kem!.decapsulate(open(KEM_CIPHERTEXT_LENGTH)));
          this.#dhAhead();
          const shared = await opened;
          this.#symmetric.mixKey(shared);
          shared.fill(0);
          break;
        }
        default:
          this.#mixDh(token);
      }
    }
    return open(Math.max(0, message.length - at - this.#symmetric.overhead));
  }

  #mixDh(token: NoiseToken): void {
    const shared = this.#ahead.has(token) ? this.#ahead.get(token) : this.#dh(token);
    this.#ahead.delete(token);
    // RFC 7748 §6.1: the check for the all-zero value.
    if (shared === undefined) throw new Refusal("a key exchange gives zero");
    this.#symmetric.mixKey(shared);
    shared.fill(0);
  }

  /** Noise §5.3: the token names the initiator's key first, the responder's second. */
  #dh(token: NoiseToken): Bytes | undefined {
    const [mine, theirs] = this.#role === "initiator" ? [token[0], token[1]] : [token[1], token[0]];
    const local = mine === "e" ? this.#e : this.#s;
    const remote = theirs === "e" ? this.#re : this.#rs;
    if (local === undefined || remote === undefined) {
      throw new TypeError(`Cannot take token ${token}: a key is missing`);
    }
    return local.dh(remote);
  }

  /** Makes the key exchanges of the next message, as far as their keys are there, while a KEM operation runs. */
  #dhAhead(): void {
    for (const token of this.#pattern.messages[this.#step + 1] ?? []) {
      if (token === "se" && this.#role === "initiator") this.#ahead.set(token, this.#dh(token));
    }
  }

  #publicKeyOf(role: HandshakeRole): Bytes {
    return role === this.#role ? this.#s!.publicKey : this.#rs!;
  }

  #end(state: "dead" | "split"): void {
    this.#state = state;
    this.#symmetric.wipe();
    this.#e?.wipe();
    this.#kem?.wipe();
    this.#e = undefined;
    this.#kem = undefined;
    for (const shared of this.#ahead.values()) shared?.fill(0);
    this.#ahead.clear();
  }
}

/** A promise whose rejection is looked at later, or never: then it is nobody's loss. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

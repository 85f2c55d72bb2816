/**
 * The handshake of HTX 1.1 §1 over a byte stream: three messages, each `uint16 length ‖ message`.
 *
 *     initiator                                                     responder
 *       e, es [, e1]      ── 48 or 1248 bytes ──►     tells the form by the length,
 *                                                     refuses a repeated e
 *                         ◄── 48 or 1152 bytes ──     e, ee [, ekem1]
 *       s, se             ── 64 bytes ──────────►     authorize(s)
 *       frames …                                      frames …
 *
 * A responder has one way to fail, and it is silent: see {@linkcode respond}.
 * This module is browser compatible.
 *
 * @module
 */

import {
  type ByteIo,
  type Bytes,
  concat,
  copyOf,
  type CryptoBackend,
  type HandshakeSecrets,
  selectCrypto,
  timingSafeEqual,
  utf8,
} from "../core/mod.ts";
import { endQuietly, type FramedMessage, FrameReader, HandedOver, Watch } from "./_wire.ts";
import { handshakeFailure, type HandshakeRole, HandshakeState } from "./handshake_state.ts";
import { type KeyPair, requirePublicKey } from "./key_pair.ts";
import { type NoisePattern, XK, XKhfs } from "./patterns.ts";
import type { ReplayGuard } from "./replay_guard.ts";

/** HTX 1.1 §1: "Prologue: the ASCII bytes `betanet-htx/1.1`". */
const PROLOGUE = /* @__PURE__ */ utf8("betanet-htx/1.1");
/** HTX 1.1 §1: "The whole handshake … takes at most 10 s." */
const DEFAULT_TIMEOUT_MS = 10_000;
/** The longest delay that a timer takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** HTX 1.1 §1: what a failed responder reads and discards. */
const MAX_DISCARDED = 65_536;
/** One of the two forms, with its exact message lengths (payloads are empty). */
interface Form {
  readonly hybrid: boolean;
  readonly pattern: NoisePattern;
  readonly lengths: readonly [number, number, number];
}

const CLASSIC: Form = /* @__PURE__ */ Object.freeze({
  hybrid: false,
  pattern: XK,
  lengths: [48, 48, 64] as const,
});
const HYBRID: Form = /* @__PURE__ */ Object.freeze({
  hybrid: true,
  pattern: XKhfs,
  lengths: [1248, 1152, 64] as const,
});

/** Options that both sides share. */
export interface HandshakeOptions {
  /** The static key of this side. */
  keyPair: KeyPair;
  /**
   * Bytes of the carrier that both ends configured, for example a TLS exporter: they follow the prologue, and a
   * handshake whose ends differ in them fails.
   *
   * @default {none}
   */
  channelBinding?: Uint8Array | undefined;
  /** The whole handshake takes no longer, in milliseconds. @default {10000} */
  timeoutMs?: number | undefined;
  /** Gives the handshake up and ends the duplex. */
  signal?: AbortSignal | undefined;
  /** The primitives. @default {selectCrypto()} */
  crypto?: CryptoBackend | undefined;
  /** The 32 private bytes of the ephemeral key, in place of fresh ones. */
  ephemeralForTestingOnly?: Uint8Array | undefined;
}

/** Options of {@linkcode initiate}. */
export interface InitiateOptions extends HandshakeOptions {
  /** The responder's public key, pinned: 32 bytes, canonical. There is no default and no way around it. */
  remoteStatic: Uint8Array;
  /**
   * `"require"` offers the hybrid handshake and takes nothing less; `"off"` offers the classic one. The other form
   * is never tried by itself.
   *
   * @default {"require"}
   */
  postQuantum?: "require" | "off" | undefined;
  /**
   * Leaves message 3 to the caller, as {@linkcode HandshakeResult.pending}, so that it can share a write with the
   * first frames. Nothing may be written before it.
   *
   * @default {false}
   */
  deferMessage3?: boolean | undefined;
  /** The 64-byte seed of the KEM key (FIPS 203: d, then z), in place of a fresh one. */
  kemSeedForTestingOnly?: Uint8Array | undefined;
}

/** Options of {@linkcode respond}. */
export interface RespondOptions extends HandshakeOptions {
  /** Remembers the handshakes seen; one for all listeners with this key. */
  replayGuard: ReplayGuard;
  /**
   * `"accept"` takes both forms, `"require"` the hybrid one alone, `"off"` the classic one alone.
   *
   * @default {"accept"}
   */
  postQuantum?: "accept" | "require" | "off" | undefined;
  /**
   * Whether the initiator with this static key may come in. Asked once, after message 3 was verified and before a
   * byte of its owner is looked at. Throwing means no.
   *
   * @default {everyone may}
   */
  authorize?: ((remoteStatic: Bytes) => boolean | Promise<boolean>) | undefined;
  /**
   * Takes a failed duplex over in place of the silent end: a decoy. It gets every byte read so far and the duplex,
   * which is its own from then on.
   *
   * @default {the silent end}
   */
  onFailure?: ((bytesSoFar: Bytes, io: ByteIo) => void | Promise<void>) | undefined;
  /** The 32 random bytes of the encapsulation (FIPS 203: m), in place of fresh ones. */
  kemMessageForTestingOnly?: Uint8Array | undefined;
}

/**
 * What a handshake gives. The Split keys stay out of sight of `console.log` and `JSON.stringify`; they are for
 * `deriveSessionKeys()`, which overwrites them.
 */
export class HandshakeResult {
  /** Which side this was. */
  readonly role: HandshakeRole;
  /** The Noise protocol name. */
  readonly protocol: string;
  /** Whether the handshake was hybrid: safe against a recording kept for a quantum computer. */
  readonly hybrid: boolean;
  /** The handshake hash h; public. */
  readonly hash: Bytes;
  /** The peer's static public key, proven. */
  readonly remoteStatic: Bytes;
  /** Responder: bytes that were read behind message 3; they belong to frames. */
  readonly rest: Bytes;
  /** Initiator with `deferMessage3`: message 3 in its framing, to be written before anything else. */
  readonly pending: Bytes;
  readonly #secrets: HandshakeSecrets;

  /** Made by {@linkcode initiate} and {@linkcode respond}. */
  constructor(
    role: HandshakeRole,
    form: { hybrid: boolean; protocol: string },
    secrets: HandshakeSecrets,
    peer: { remoteStatic: Bytes; rest?: Bytes; pending?: Bytes },
  ) {
    this.role = role;
    this.protocol = form.protocol;
    this.hybrid = form.hybrid;
    this.hash = copyOf(secrets.h);
    this.remoteStatic = peer.remoteStatic;
    this.rest = peer.rest ?? new Uint8Array(0);
    this.pending = peer.pending ?? new Uint8Array(0);
    this.#secrets = secrets;
  }

  /** The Split keys and h: the argument of `deriveSessionKeys()`. Secret. */
  get secrets(): HandshakeSecrets {
    return this.#secrets;
  }

  /** Overwrites the Split keys, for a result that is not going to be used. */
  wipe(): void {
    this.#secrets.k1.fill(0);
    this.#secrets.k2.fill(0);
  }
}

/** An initiator whose first message is being made while its carrier still connects. */
export interface PreparedInitiator {
  /**
   * Runs the handshake over `io`, once.
   *
   * @throws {HtxError} `HANDSHAKE_FAILED`, and `io` is closed
   * @throws {TypeError} when it ran before, or was discarded
   */
  run(io: ByteIo): Promise<HandshakeResult>;
  /**
   * Overwrites the ephemeral keys of a handshake that is not going to run; resolves when nothing of it is under way
   * any more. Idempotent, never rejects; without effect once it runs.
   */
  discard(): Promise<void>;
}

/**
 * The initiator's side: sends message 1, verifies that the peer holds the pinned key, proves this side's own.
 *
 * When it resolves, the responder has not verified message 3 yet: an end of the duplex before its first frame is a
 * failed handshake too (HTX 1.1 §1), which the connection on top reports as `HANDSHAKE_FAILED`.
 *
 * @throws {TypeError} when `remoteStatic` is missing or no canonical X25519 key, or is this side's own
 * @throws {HtxError} `HANDSHAKE_FAILED` whatever went wrong on the wire, and `io` is closed
 */
export async function initiate(io: ByteIo, options: InitiateOptions): Promise<HandshakeResult> {
  return await prepareInitiator(options).run(io);
}

/**
 * Starts on message 1 (ephemeral keys, first key exchange) before there is a duplex to send it on: a dialer calls
 * this, connects, then calls {@linkcode PreparedInitiator.run}. The time limit counts from there.
 *
 * @throws {TypeError} as {@linkcode initiate}
 */
export function prepareInitiator(options: InitiateOptions): PreparedInitiator {
  checkInitiateOptions(options);
  const { keyPair, remoteStatic, postQuantum = "require", deferMessage3 = false, signal } = options;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  signal?.throwIfAborted();

  const pinned = copyOf(remoteStatic);
  const form = postQuantum === "require" ? HYBRID : CLASSIC;
  const state = new HandshakeState(form.pattern, "initiator", options.crypto ?? selectCrypto(), {
    prologue: prologue(options.channelBinding),
    keyPair,
    remoteStatic: pinned,
    ephemeralForTestingOnly: options.ephemeralForTestingOnly,
    kemSeedForTestingOnly: options.kemSeedForTestingOnly,
  });
  const message1 = state.writeMessage();
  message1.catch(() => {}); // told by run(), or by nobody
  let used = false;

  async function run(io: ByteIo): Promise<HandshakeResult> {
    if (used) throw new TypeError("Cannot run handshake: it ran before, or was discarded");
    used = true;
    const watch = new Watch(timeoutMs, signal);
    const reader = new FrameReader(io, watch);
    try {
      await watch.race(io.write(frame(await message1)));

      await state.readMessage((await reader.receive([form.lengths[1]])).message);
      if (reader.rest().length > 0) throw new Error("bytes follow message 2");

      const message3 = frame(await state.writeMessage());
      if (!deferMessage3) await watch.race(io.write(message3));
      watch.check();
      return new HandshakeResult(
        "initiator",
        { hybrid: form.hybrid, protocol: form.pattern.protocol },
        state.split(),
        {
          remoteStatic: copyOf(remoteStatic),
          ...(deferMessage3 && { pending: message3 }),
        },
      );
    } catch (cause) {
      state.wipe();
      io.close();
      signal?.throwIfAborted();
      throw handshakeFailure(cause);
    } finally {
      watch.end();
      reader.release();
    }
  }

  return {
    run,
    discard: async () => {
      if (!used) state.wipe();
      used = true;
      await message1.catch(() => {});
    },
  };
}

/**
 * Throws what {@linkcode prepareInitiator} would throw for these options, and computes nothing: for a client that
 * dials later.
 *
 * @throws {TypeError} as {@linkcode initiate}
 */
export function checkInitiateOptions(options: InitiateOptions): void {
  const { keyPair, remoteStatic, postQuantum = "require" } = options;
  requirePublicKey("dial", remoteStatic);
  requireKeyPair("dial", keyPair);
  if (postQuantum !== "require" && postQuantum !== "off") {
    throw new TypeError('Cannot dial: postQuantum is none of "require", "off"');
  }
  if (timingSafeEqual(keyPair.publicKey, remoteStatic)) {
    throw new TypeError("Cannot dial: the pinned key is this side's own");
  }
  requireChannelBinding("dial", options.channelBinding);
  requireTimeout("dial", options.timeoutMs);
}

/**
 * The responder's side: answers whoever opens with a good message 1, then asks `authorize` about the static key of
 * message 3.
 *
 * **One silent failure path** (HTX 1.1 §1). Whatever fails (a length, a tag, a key that is not canonical, a
 * repetition, a form that is not allowed, `authorize`), nothing is sent, up to 64 KiB are read and discarded until
 * the peer ends or the time limit passes, then the duplex ends with a FIN, and the promise rejects. With
 * `onFailure` the decoy has the duplex instead, and the promise rejects at once.
 *
 * An aborted `signal` ends the duplex at once.
 *
 * @throws {TypeError} when an option is missing or not what it must be
 * @throws {HtxError} `HANDSHAKE_FAILED`, always with the same message; `cause` tells logs what it was
 */
export async function respond(io: ByteIo, options: RespondOptions): Promise<HandshakeResult> {
  checkRespondOptions(options);
  const { keyPair, replayGuard, postQuantum = "accept", authorize, onFailure, signal } = options;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const forms = postQuantum === "accept" ? [CLASSIC, HYBRID] : [postQuantum === "require" ? HYBRID : CLASSIC];

  const watch = new Watch(timeoutMs, signal);
  const reader = new FrameReader(io, watch);
  let state: HandshakeState | undefined;
  try {
    const first: FramedMessage = await reader.receive(forms.map((form) => form.lengths[0]));
    if (reader.rest().length > 0) throw new Error("bytes follow message 1");
    const form = first.message.length === HYBRID.lengths[0] ? HYBRID : CLASSIC;
    state = new HandshakeState(form.pattern, "responder", options.crypto ?? selectCrypto(), {
      prologue: prologue(options.channelBinding),
      keyPair,
      ephemeralForTestingOnly: options.ephemeralForTestingOnly,
      kemMessageForTestingOnly: options.kemMessageForTestingOnly,
    });
    await state.readMessage(first.message);
    if (!replayGuard.remember(state.remoteEphemeral!)) throw new Error("message 1 was seen before");

    await watch.race(io.write(frame(await state.writeMessage())));

    await state.readMessage((await reader.receive([form.lengths[2]])).message);
    const remoteStatic = state.remoteStatic!;
    if (authorize !== undefined) {
      const allowed = await watch.race(Promise.resolve(authorize(copyOf(remoteStatic))));
      if (allowed !== true) throw new Error("authorize said no");
    }
    watch.check();
    return new HandshakeResult(
      "responder",
      { hybrid: form.hybrid, protocol: form.pattern.protocol },
      state.split(),
      {
        remoteStatic,
        rest: reader.rest(),
      },
    );
  } catch (cause) {
    state?.wipe();
    if (signal?.aborted) {
      await endQuietly(io);
      throw signal.reason;
    }
    if (onFailure !== undefined) handOver(onFailure, reader, io);
    else await discard(io, reader, watch);
    throw handshakeFailure(cause);
  } finally {
    watch.end();
    reader.release();
  }
}

/**
 * Throws what {@linkcode respond} would throw for these options, and reads nothing: for a server that has yet to
 * accept.
 *
 * @throws {TypeError} as {@linkcode respond}
 */
export function checkRespondOptions(options: RespondOptions): void {
  const { keyPair, replayGuard, postQuantum = "accept" } = options;
  requireKeyPair("answer", keyPair);
  if (typeof replayGuard?.remember !== "function") {
    throw new TypeError("Cannot answer: replayGuard is missing");
  }
  if (postQuantum !== "accept" && postQuantum !== "require" && postQuantum !== "off") {
    throw new TypeError('Cannot answer: postQuantum is none of "accept", "require", "off"');
  }
  requireChannelBinding("answer", options.channelBinding);
  requireTimeout("answer", options.timeoutMs);
}

/** The silent end: reads and discards, then a FIN. */
async function discard(io: ByteIo, reader: FrameReader, watch: Watch): Promise<void> {
  try {
    await reader.discard(MAX_DISCARDED);
    // Past the limit nothing is read any more, and nothing tells that from the outside before the time is over.
    if (!reader.ended) await watch.stopped;
  } catch {
    // the deadline, the signal, or a duplex that broke: the end is the same
  }
  await endQuietly(io);
}

function handOver(
  onFailure: NonNullable<RespondOptions["onFailure"]>,
  reader: FrameReader,
  io: ByteIo,
): void {
  // A read may still be under way when the time limit passed: its bytes are the decoy's.
  const handed = new HandedOver(io, reader.unsettled);
  const failed = () => io.close(); // the decoy reports its own errors
  try {
    Promise.resolve(onFailure(reader.all(), handed)).catch(failed);
  } catch {
    failed();
  }
}

/** `uint16 length ‖ message` (HTX 1.1 §1). */
function frame(message: Uint8Array): Bytes {
  return concat(new Uint8Array([message.length >>> 8, message.length & 0xff]), message);
}

/** HTX 1.1 §1: "Channel binding is off unless both ends configure it; then its bytes follow". */
function prologue(channelBinding: Uint8Array | undefined): Bytes {
  return channelBinding === undefined ? PROLOGUE : concat(PROLOGUE, channelBinding);
}

function requireKeyPair(verb: string, keyPair: unknown): void {
  if (typeof keyPair !== "object" || keyPair === null || !("dhKey" in keyPair)) {
    throw new TypeError(`Cannot ${verb}: keyPair is ${keyPair === undefined ? "missing" : "no KeyPair"}`);
  }
}

/** Anything else would be hashed as zeros, and bind to nothing. */
function requireChannelBinding(verb: string, channelBinding: unknown): void {
  if (channelBinding === undefined || channelBinding instanceof Uint8Array) return;
  throw new TypeError(`Cannot ${verb}: channelBinding is no Uint8Array`);
}

function requireTimeout(verb: string, timeoutMs: number = DEFAULT_TIMEOUT_MS): void {
  if (!(timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT_MS)) {
    throw new RangeError(
      `Cannot ${verb}: timeoutMs of the handshake is ${timeoutMs}, not 1 to ${MAX_TIMEOUT_MS}`,
    );
  }
}

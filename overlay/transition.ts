/**
 * The transition control stream (HTX 1.1 §8): a server says, signed and bound to the session, from which autonomous
 * system its traffic moves to which.
 *
 *     map  = { "prevAS": uint, "nextAS": uint, "TS": uint (Unix seconds),
 *              "FLOW": bytes[8], "NONCE": bytes[8], "SIG": bytes[64] }        keys in this order
 *     SIG  = Ed25519(key of prevAS, uint64 prevAS ‖ uint64 nextAS ‖ uint64 TS ‖ FLOW ‖ NONCE ‖ "bn-t1" ‖ h)
 *
 * {@linkcode transitionSender} and {@linkcode transitionReceiver} make the hooks that a server and a client are given
 * as their `controlStream`; {@linkcode TransitionReader} is the receiving side without a session around it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type BucketRate, Buckets, checkRate, Memory } from "./_buckets.ts";
import {
  concat,
  copyOf,
  ed25519Sign,
  ed25519Verify,
  HtxError,
  selectCrypto,
  tell,
  toHex,
  u64be,
  utf8,
} from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed, requireBytes } from "./_malformed.ts";
import { type CborValue, decodeCborMap, encodeCbor, scanCbor } from "./cbor.ts";

export type { BucketRate };

/** "A receiver verifies … `|now - TS| <= 300 s`." In ms. */
export const TRANSITION_TIME_TOLERANCE_MS = 300_000;
/** "… refuses a (FLOW, TS) seen in the last 2 h." In ms. */
export const TRANSITION_REPLAY_MS = 2 * 3_600_000;
/** Longest encoding of a map: six keys, three 64-bit integers, byte strings of 8, 8 and 64. */
export const MAX_CONTROL_MAP_LENGTH = 144;

/** "`{ prevAS, nextAS, TS, FLOW[8], NONCE[8], SIG[64] }`: text keys in this order." */
const KEYS = ["prevAS", "nextAS", "TS", "FLOW", "NONCE", "SIG"] as const;
const FLOW_LENGTH = 8;
const NONCE_LENGTH = 8;
const SIGNATURE_LENGTH = 64;
const HASH_LENGTH = 32;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const SIGNATURE_CONTEXT = /* @__PURE__ */ utf8("bn-t1");
/**
 * Maps that one peer may send, over all its sessions with a receiver: ours, as §8 names no numbers. A sender of ours keeps
 * to a quarter of it in each session.
 */
const RECEIVER_RATE: BucketRate = { burst: 128, perSecond: 16 };
const SENDER_RATE: BucketRate = { burst: 32, perSecond: 4 };
const MAX_PEERS = 65_536;
const MAX_REMEMBERED = 65_536;
const WHAT = "control map";

/** A control map. */
export interface ControlMap {
  /** The autonomous system that traffic leaves; its key signs. */
  readonly prevAs: bigint;
  /** The autonomous system that traffic moves to. */
  readonly nextAs: bigint;
  /** When the map was made, in Unix seconds. */
  readonly ts: bigint;
  /** Which flow it is about: 8 bytes. With `ts` it makes the map unique. */
  readonly flow: Bytes;
  /** 8 random bytes. */
  readonly nonce: Bytes;
  /** The signature: 64 bytes. */
  readonly sig: Bytes;
}

/** The bytes of a map. */
export function encodeControlMap(map: ControlMap): Bytes {
  checkFields(map);
  checkBytes(map.sig, SIGNATURE_LENGTH, "control map's signature");
  const values: Record<typeof KEYS[number], CborValue> = {
    prevAS: map.prevAs,
    nextAS: map.nextAs,
    TS: map.ts,
    FLOW: map.flow,
    NONCE: map.nonce,
    SIG: map.sig,
  };
  return encodeCbor(new Map(KEYS.map((key) => [key, values[key]])));
}

/**
 * Reads exactly one map. It is not verified by this: see {@linkcode verifyControlMap}.
 *
 * @throws {HtxError} `MALFORMED`, with the offending key (or `cbor`) as `field`
 */
export function decodeControlMap(bytes: Uint8Array): ControlMap {
  const map = decodeCborMap(bytes, KEYS, WHAT);
  requireBytes(map.FLOW, FLOW_LENGTH, WHAT, "FLOW");
  requireBytes(map.NONCE, NONCE_LENGTH, WHAT, "NONCE");
  requireBytes(map.SIG, SIGNATURE_LENGTH, WHAT, "SIG");
  return {
    prevAs: unsigned(map.prevAS, "prevAS"),
    nextAs: unsigned(map.nextAS, "nextAS"),
    ts: unsigned(map.TS, "TS"),
    flow: copyOf(map.FLOW),
    nonce: copyOf(map.NONCE),
    sig: copyOf(map.SIG),
  };
}

/**
 * Signs a map for one session.
 *
 * @param privateKey the 32-byte Ed25519 key of `prevAs`
 * @param handshakeHash `h` of the session, 32 bytes
 */
export function signControlMap(
  fields: Omit<ControlMap, "sig">,
  privateKey: Uint8Array,
  handshakeHash: Uint8Array,
): ControlMap {
  const { prevAs, nextAs, ts, flow, nonce } = fields;
  return {
    prevAs,
    nextAs,
    ts,
    flow,
    nonce,
    sig: ed25519Sign(signedBytes(fields, handshakeHash), privateKey),
  };
}

/** The public key configured for an autonomous system. */
export type AsKeys = ReadonlyMap<bigint, Uint8Array> | ((as: bigint) => Uint8Array | undefined);

/** What {@linkcode verifyControlMap} needs. */
export interface VerifyControlMapOptions {
  /** The keys configured. */
  keys: AsKeys;
  /** `h` of the session, 32 bytes. */
  handshakeHash: Uint8Array;
  /** The time, in ms since 1970. */
  now: number;
}

/** Why a map is refused. */
export type ControlMapRefusal =
  /** more than 300 s from the receiver's clock */
  | "time"
  /** no key is configured for `prevAs` */
  | "unknown-as"
  /** the signature does not fit this map, key and session */
  | "signature"
  /** this (FLOW, TS) was seen in the last 2 h */
  | "replayed"
  /** the memory for (FLOW, TS) is full of live entries */
  | "memory-full"
  /** the peer sent too many */
  | "rate"
  /** it was sent before the last KEY_UPDATE of the server's direction */
  | "superseded";

/** The verdict on a map. */
export type ControlMapVerdict =
  | { readonly ok: true; readonly map: ControlMap }
  | { readonly ok: false; readonly reason: ControlMapRefusal; readonly map: ControlMap };

/** Checks time and signature of a map: all that needs no memory. */
export function verifyControlMap(map: ControlMap, options: VerifyControlMapOptions): ControlMapVerdict {
  const { keys, handshakeHash, now } = options;
  // "|now - TS| <= 300 s", both ends included; in whole ms, which a number holds exactly.
  const ts = Number(map.ts) * 1000;
  if (!(Math.abs(now - ts) <= TRANSITION_TIME_TOLERANCE_MS)) return { ok: false, reason: "time", map };
  const key = typeof keys === "function" ? keys(map.prevAs) : keys.get(map.prevAs);
  if (key === undefined) return { ok: false, reason: "unknown-as", map };
  const good = ed25519Verify(map.sig, signedBytes(map, handshakeHash), key);
  return good ? { ok: true, map } : { ok: false, reason: "signature", map };
}

/** Memory of (FLOW, TS) over 2 h, bounded; one for all sessions of a client. */
export class TransitionReplayGuard {
  readonly #memory: Memory;

  /**
   * Makes an empty memory.
   *
   * @param limit most pairs remembered; past it maps are refused rather than pairs forgotten. @default {65536}
   */
  constructor(limit: number = MAX_REMEMBERED) {
    this.#memory = new Memory(TRANSITION_REPLAY_MS, limit);
  }

  /** Pairs remembered. */
  get size(): number {
    return this.#memory.size;
  }

  /** Checks and records in one step. `now` in ms. */
  record(map: Pick<ControlMap, "flow" | "ts">, now: number): "fresh" | "replayed" | "full" {
    const answer = this.#memory.add(`${toHex(map.flow)} ${map.ts}`, now);
    return answer === "seen" ? "replayed" : answer;
  }
}

/** Settings of {@linkcode transitionReceiver} and {@linkcode TransitionReader}. */
export interface TransitionReceiverOptions {
  /** The keys configured for autonomous systems. */
  keys: AsKeys;
  /** Clock in ms since 1970. @default {Date.now} */
  now?: (() => number) | undefined;
  /** Memory of pairs seen. @default one of its own */
  guard?: TransitionReplayGuard | undefined;
  /** Token bucket per peer. @default {{ burst: 128, perSecond: 16 }} */
  rate?: BucketRate | undefined;
}

/** What a {@linkcode TransitionReader} has to know of its session. */
export interface TransitionReaderSession {
  /** `h` of the session, 32 bytes. */
  readonly handshakeHash: Uint8Array;
  /** The server's static public key. */
  readonly remoteStatic: Uint8Array;
}

/** Judges maps by all the rules, with the state that the sessions of one client share. */
export class TransitionJudge {
  readonly #keys: AsKeys;
  readonly #now: () => number;
  readonly #guard: TransitionReplayGuard;
  readonly #buckets: Buckets;

  /**
   * Makes a judge.
   *
   * @throws {RangeError} when the rate is none
   */
  constructor(options: TransitionReceiverOptions) {
    const { keys, now = Date.now, guard = new TransitionReplayGuard(), rate = RECEIVER_RATE } = options;
    this.#keys = keys;
    this.#now = now;
    this.#guard = guard;
    this.#buckets = new Buckets(checkRate(rate, "transition rate"), MAX_PEERS);
  }

  /** The verdict on a map that a session's peer sent; a good one is recorded. */
  judge(map: ControlMap, session: TransitionReaderSession): ControlMapVerdict {
    const now = this.#now();
    // Cheap checks first; the memory last, so that only what was verified can fill it.
    if (!this.#buckets.take(toHex(session.remoteStatic), now)) return { ok: false, reason: "rate", map };
    const verdict = verifyControlMap(map, { keys: this.#keys, handshakeHash: session.handshakeHash, now });
    if (!verdict.ok) return verdict;
    const answer = this.#guard.record(map, now);
    if (answer === "fresh") return verdict;
    return { ok: false, reason: answer === "full" ? "memory-full" : "replayed", map };
  }
}

/** Reads the stream of one session: bytes in, verdicts out. */
export class TransitionReader {
  readonly #rules: TransitionJudge;
  readonly #session: TransitionReaderSession;
  #pending: Bytes = new Uint8Array(0);
  #broken: HtxError | undefined;
  /** Bytes of the stream taken in, and those of them that lie before the last rekey. */
  #received = 0;
  #supersededTo = 0;
  #current: ControlMap | undefined;

  /** Makes a reader with a judge of its own, or with one that it shares with the readers of other sessions. */
  constructor(session: TransitionReaderSession, options: TransitionReceiverOptions | TransitionJudge) {
    checkBytes(session.handshakeHash, HASH_LENGTH, "handshake hash");
    this.#rules = options instanceof TransitionJudge ? options : new TransitionJudge(options);
    this.#session = {
      handshakeHash: copyOf(session.handshakeHash),
      remoteStatic: copyOf(session.remoteStatic),
    };
  }

  /** The map in force: the last one verified, if no KEY_UPDATE came after it. */
  get current(): ControlMap | undefined {
    return this.#current;
  }

  /**
   * Takes bytes as they arrived and judges each map that they complete.
   *
   * @param options `onVerdict` is told of each verdict as it is given, of those too that an error keeps from being returned
   * @throws {HtxError} `MALFORMED` when they are no sequence of control maps, `INTERNAL_ERROR` when the clock gives no
   * number; nothing after them can be read
   */
  push(
    chunk: Uint8Array,
    options: { onVerdict?: ((verdict: ControlMapVerdict) => void) | undefined } = {},
  ): ControlMapVerdict[] {
    if (this.#broken) throw this.#broken;
    this.#received += chunk.length;
    this.#pending = concat(this.#pending, chunk);
    const verdicts: ControlMapVerdict[] = [];
    try {
      for (let map = this.#next(); map; map = this.#next()) {
        const verdict = this.#judge(map);
        verdicts.push(verdict);
        tell(options.onVerdict, verdict);
      }
    } catch (error) {
      if (!(error instanceof HtxError)) throw error;
      this.#current = undefined;
      this.#pending = new Uint8Array(0);
      this.#broken = error;
      throw error;
    }
    return verdicts;
  }

  /**
   * Tells that the stream ended.
   *
   * @throws {HtxError} `MALFORMED`, field `cbor`, when it ended within a map
   */
  end(): void {
    if (this.#pending.length > 0) throw malformed(WHAT, "cbor", "is cut off by the end of the stream");
  }

  /**
   * Tells that a KEY_UPDATE of the server's direction came: "a fresh map is sent; the earlier one is then invalid".
   *
   * @param atByte bytes of the stream that arrived before the KEY_UPDATE, where the caller knows it: maps within
   * them are refused even if they are pushed later. @default what was pushed so far
   */
  serverRekeyed(atByte: number = this.#received): void {
    this.#supersededTo = Math.max(this.#supersededTo, atByte);
    this.#current = undefined;
  }

  #next(): { map: ControlMap; start: number } | undefined {
    if (this.#pending.length === 0) return undefined;
    // A length above the bound is refused without waiting for its bytes.
    const scan = scanCbor(this.#pending.subarray(0, MAX_CONTROL_MAP_LENGTH));
    if (scan === undefined) {
      if (this.#pending.length < MAX_CONTROL_MAP_LENGTH) return undefined;
      throw malformed(WHAT, "cbor", `is longer than ${MAX_CONTROL_MAP_LENGTH} bytes`);
    }
    if (!scan.ok) throw malformed(WHAT, "cbor", `is not strict CBOR: ${scan.reason} at byte ${scan.at}`);
    const map = decodeControlMap(this.#pending.subarray(0, scan.length));
    const start = this.#received - this.#pending.length;
    this.#pending = this.#pending.slice(scan.length);
    return { map, start };
  }

  #judge({ map, start }: { map: ControlMap; start: number }): ControlMapVerdict {
    if (start < this.#supersededTo) return { ok: false, reason: "superseded", map };
    const verdict = this.#rules.judge(map, this.#session);
    if (verdict.ok) this.#current = map;
    return verdict;
  }
}

/** What a server's session gives its control stream hook. Calling `send` the first time opens stream 2. */
export interface TransitionServerContext {
  /** `h` of the session. */
  readonly handshakeHash: Uint8Array;
  /** The client's static public key. */
  readonly remoteStatic: Uint8Array;
  /** Aborts when the session or the stream ends. */
  readonly signal: AbortSignal;
  /** Sends bytes on stream 2; resolves when there is room for more, rejects when the client reset the stream. */
  send(bytes: Uint8Array): Promise<void>;
  /** Calls back after every KEY_UPDATE of the server's own direction. */
  onRekey(callback: () => void): void;
}

/** What a client's session gives its control stream hook, once the server opened stream 2. */
export interface TransitionClientContext {
  /** `h` of the session. */
  readonly handshakeHash: Uint8Array;
  /** The server's static public key. */
  readonly remoteStatic: Uint8Array;
  /** Aborts when the session or the stream ends. */
  readonly signal: AbortSignal;
  /** The bytes of stream 2 as they arrive. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Calls back after every KEY_UPDATE of the server's direction, with the bytes of stream 2 received before it. */
  onRekey(callback: (atByte?: number) => void): void;
}

/** Settings of {@linkcode transitionSender}. */
export interface TransitionSenderOptions {
  /** The autonomous system that traffic leaves. */
  prevAs: bigint;
  /** The one that it moves to; equal to `prevAs` while nothing moves. */
  nextAs: bigint;
  /** The 32-byte Ed25519 key of `prevAs`. It is copied. */
  privateKey: Uint8Array;
  /** Clock in ms since 1970. @default {Date.now} */
  now?: (() => number) | undefined;
  /** Random source. @default the system's */
  random?: ((length: number) => Uint8Array) | undefined;
  /** Most maps sent per session; rekeys that come faster share one. @default {{ burst: 32, perSecond: 4 }} */
  rate?: BucketRate | undefined;
  /** Told once when a session's stream ended, with the reason: `REFUSED` from a client without the feature. */
  onEnd?: ((reason: unknown, ctx: TransitionServerContext) => void) | undefined;
}

/** The hook of a server: sends a map at once, after every KEY_UPDATE of its direction, and on `announce`. */
export interface TransitionSender {
  (ctx: TransitionServerContext): void;
  /** Changes what is announced, to `key` from now on if given, and sends it on every open session. */
  announce(change: { prevAs: bigint; nextAs: bigint; privateKey?: Uint8Array | undefined }): void;
}

/**
 * Makes the server's side of the control stream.
 *
 * FLOW is drawn afresh for every map: (FLOW, TS) must not repeat within 2 h, and two rekeys may fall into one second.
 *
 * @throws {TypeError} when the key is not 32 bytes
 * @throws {RangeError} when a number is not a uint64
 */
export function transitionSender(options: TransitionSenderOptions): TransitionSender {
  const {
    now = Date.now,
    random = (length) => selectCrypto().randomBytes(length),
    rate = SENDER_RATE,
    onEnd,
  } = options;
  if (!(checkRate(rate, "transition rate").perSecond > 0)) {
    throw new RangeError("Cannot use transition rate: perSecond is 0");
  }
  let said = check(options);
  const sessions = new Set<() => void>();

  function check(change: { prevAs: bigint; nextAs: bigint; privateKey: Uint8Array }) {
    checkBytes(change.privateKey, 32, "control map's key");
    u64be(change.prevAs);
    u64be(change.nextAs);
    return { prevAs: change.prevAs, nextAs: change.nextAs, privateKey: copyOf(change.privateKey) };
  }

  function make(handshakeHash: Uint8Array): Bytes {
    const { prevAs, nextAs, privateKey } = said;
    const ts = BigInt(Math.floor(now() / 1000));
    const flow = copyOf(random(FLOW_LENGTH));
    const nonce = copyOf(random(NONCE_LENGTH));
    return encodeControlMap(signControlMap({ prevAs, nextAs, ts, flow, nonce }, privateKey, handshakeHash));
  }

  function hook(ctx: TransitionServerContext): void {
    const { signal } = ctx;
    const bucket = new Buckets(rate, 1);
    let due = false;
    let running = false;
    let ended = false;

    // One map at a time, and one waiting at most, however many rekeys come meanwhile: the last state is what counts.
    async function pump(): Promise<void> {
      if (running) return;
      running = true;
      try {
        while (due && !ended && !signal.aborted) {
          await sleep(bucket.delay("", now()), signal);
          if (signal.aborted) break;
          if (!bucket.take("", now())) continue;
          due = false;
          await ctx.send(make(ctx.handshakeHash));
        }
      } catch (error) {
        stop(error);
      } finally {
        running = false;
      }
    }
    function send(): void {
      if (ended) return;
      due = true;
      void pump();
    }
    function stop(reason: unknown): void {
      if (ended) return;
      ended = true;
      sessions.delete(send);
      signal.removeEventListener("abort", onAbort);
      tell((reason) => onEnd?.(reason, ctx), reason);
    }
    function onAbort(): void {
      stop(signal.reason);
    }

    if (signal.aborted) return;
    signal.addEventListener("abort", onAbort);
    sessions.add(send);
    ctx.onRekey(send);
    send();
  }

  return Object.assign(hook, {
    announce(change: { prevAs: bigint; nextAs: bigint; privateKey?: Uint8Array | undefined }): void {
      const { prevAs, nextAs, privateKey = said.privateKey } = change;
      said = check({ prevAs, nextAs, privateKey });
      for (const send of [...sessions]) send();
    },
  });
}

/** Settings of the hook that {@linkcode transitionReceiver} makes. */
export interface TransitionHookOptions extends TransitionReceiverOptions {
  /** Told of every verdict, good or bad. */
  onVerdict?: ((verdict: ControlMapVerdict, ctx: TransitionClientContext) => void) | undefined;
  /** Told when the map in force changes: a verified one, or `undefined` after a rekey, a bad stream or its end. */
  onChange?: ((current: ControlMap | undefined, ctx: TransitionClientContext) => void) | undefined;
}

/** The hook of a client: reads, verifies and reports. Settles when the stream ended; rejects when it is malformed. */
export type TransitionReceiver = (ctx: TransitionClientContext) => Promise<void>;

/**
 * Makes the client's side of the control stream. One receiver serves many sessions: they share the replay guard and
 * the buckets.
 *
 * The hook's promise rejects with `MALFORMED` on bytes that are no control maps: the caller then resets the stream.
 */
export function transitionReceiver(options: TransitionHookOptions): TransitionReceiver {
  const { onVerdict, onChange } = options;
  const judge = new TransitionJudge(options);
  return async (ctx) => {
    const reader = new TransitionReader(ctx, judge);
    let known: ControlMap | undefined;
    let ended = false;
    const report = (current: ControlMap | undefined) => {
      if (current === known) return;
      known = current;
      tell((current) => onChange?.(current, ctx), current);
    };
    ctx.onRekey((atByte) => {
      if (ended) return;
      reader.serverRekeyed(atByte);
      report(undefined);
    });
    try {
      for await (const chunk of ctx.chunks) {
        reader.push(chunk, { onVerdict: (verdict) => onVerdict?.(verdict, ctx) });
        report(reader.current);
      }
      reader.end();
    } finally {
      ended = true;
      report(undefined);
    }
  };
}

function signedBytes(map: Omit<ControlMap, "sig">, handshakeHash: Uint8Array): Bytes {
  checkFields(map);
  checkBytes(handshakeHash, HASH_LENGTH, "handshake hash");
  return concat(
    u64be(map.prevAs),
    u64be(map.nextAs),
    u64be(map.ts),
    map.flow,
    map.nonce,
    SIGNATURE_CONTEXT,
    handshakeHash,
  );
}

function checkFields(map: Omit<ControlMap, "sig">): void {
  for (const value of [map.prevAs, map.nextAs, map.ts]) {
    if (typeof value !== "bigint") throw new TypeError("Cannot use control map: a number in it is no bigint");
    if (value < 0n || value > U64_MAX) {
      throw new RangeError("Cannot use control map: a number in it is no uint64");
    }
  }
  checkBytes(map.flow, FLOW_LENGTH, "control map's FLOW");
  checkBytes(map.nonce, NONCE_LENGTH, "control map's NONCE");
}

function unsigned(value: CborValue, field: string): bigint {
  if (typeof value === "bigint" ? value < 0n : !(Number.isInteger(value) && Number(value) >= 0)) {
    throw malformed(WHAT, field, "is not an unsigned integer");
  }
  return BigInt(value as number | bigint);
}

/** Waits, a minute at most, or until the signal aborts. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, 60_000));
    signal.addEventListener("abort", done);
  });
}

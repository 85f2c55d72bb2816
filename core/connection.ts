/**
 * {@linkcode HtxConnection}: an {@linkcode HtxSession} bound to a duplex and a clock, with the shape of a
 * WebTransport session. The thin shell of the engine: it moves bytes, arms one timer and makes promises; every
 * rule of the protocol is in `core/session.ts`.
 *
 *     ByteIo.read, or Duplex.readable ─────────► HtxSession ──► HtxStream.readable
 *
 *     ByteIo.write ◄──────────────────────────── HtxSession ◄── HtxStream.writable
 *     Duplex.writable ◄─ FrameEncoderStream ◄───
 *
 * @module
 */

import { deferred } from "./_deferred.ts";
import { timerDelay } from "./_timer_delay.ts";
import {
  type Carrier,
  DirectCarrier,
  largeSendPool,
  SMALL_BATCH,
  smallSendPool,
  StreamCarrier,
} from "./carrier.ts";
import type { Bytes, CryptoBackend } from "./crypto.ts";
import type { Duplex, DuplexAddr } from "./duplex.ts";
import { type CloseCodeName, HtxError } from "./errors.ts";
import { MAX_PLAINTEXT_LENGTH } from "./frame.ts";
import type { SessionKeys } from "./keys.ts";
import type { SessionLimits } from "./limits.ts";
import { HtxSession, MAX_QUESTIONS } from "./session.ts";
import { CONTROL_STREAM_ID, type SessionStream } from "./session_stream.ts";
import type { CloseInfo, SessionStats } from "./session_types.ts";
import { HtxStream } from "./stream.ts";

/**
 * Microtask turns in a row without a write by the application after which a flush goes out: what it does on the same
 * occasion rides in the same write. Turns cost some 0.1 µs, a write to a socket 5 µs or more.
 */
const FLUSH_TURNS = 3;
/** Turns after which a flush goes out however the application goes on. */
const MAX_FLUSH_TURNS = 256;
/** Turns within which what the application answers at once goes out, before the next read is begun: that takes time, too. */
const ANSWER_TURNS = 2 * FLUSH_TURNS;

/**
 * A small write that is due so soon after another may wait for the event loop to turn, in ms: a server that handles its
 * requests one by one gets all their frames into one write. One that has time writes at once.
 */
const BUSY_MS = 0.1;
/** Writes by the application that such a turn must gather, on average, to be worth the time it takes. */
const WORTHWHILE_GAIN = 4;
/**
 * Where it is not, one in 8 to 24 such writes waits all the same, to learn of it when that changes; never at the same
 * distance, since requests that come in bunches would show the same end of them each time.
 */
const TRY_AFTER = 8;
const TRY_SPREAD = 17;
/** The share of the latest turn in that average. */
const GAIN_WEIGHT = 1 / 8;

const EMPTY = /* @__PURE__ */ new Uint8Array(0);
const RESOLVED: Promise<void> = /* @__PURE__ */ Promise.resolve();

/** A clock with timers, for tests that do not wait. */
export interface Clock {
  /** Time that never goes back, in ms. */
  now(): number;
  /** Calls `callback` once after `delay` ms, and returns what takes that back. */
  setTimer(delay: number, callback: () => void): () => void;
  /** Resolves when the event loop has turned, in microseconds; left out where there is no telling. */
  turn?(): Promise<void>;
}

const { setImmediate } = /* @__PURE__ */ globalThis as { setImmediate?: (callback: () => void) => unknown };

const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  setTimer: (delay, callback) => {
    const id = setTimeout(callback, timerDelay(Math.ceil(delay)));
    return () => clearTimeout(id);
  },
  ...setImmediate && { turn: () => new Promise<void>((resolve) => setImmediate(resolve)) },
};

/** What the handshake below a connection was. */
export interface HandshakeInfo {
  /** The Noise protocol name. */
  readonly protocol: string;
  /** Whether it was the hybrid form, which stays secret from who records now and has a quantum computer later. */
  readonly hybrid: boolean;
  /** The handshake hash, 32 bytes; public. */
  readonly hash: Bytes;
}

/** Options of a connection that users may set. */
export interface ConnectionOptions extends SessionLimits {
  /** Time and timers. @default {the system's} */
  clock?: Clock | undefined;
  /** The primitives. @default {selectCrypto()} */
  crypto?: CryptoBackend | undefined;
}

/** What an {@linkcode HtxConnection} is made of. */
export interface ConnectionInit extends ConnectionOptions {
  /** Which side this is. */
  role: "client" | "server";
  /** What the handshake gave; taken over. */
  keys: SessionKeys;
  /** The peer's static public key, proven by the handshake. */
  remoteStatic: Bytes;
  /** What the handshake was. */
  handshake: HandshakeInfo;
  /** Bytes that were received behind the handshake: the beginning of the frames. */
  received?: Uint8Array | undefined;
  /** Bytes that go out before the first frame and in one write with it: the handshake's last message. */
  pending?: Uint8Array | undefined;
  /**
   * Takes the streams that the peer opens, in place of `incomingBidirectionalStreams`. A stream counts against the
   * peer's limit until what this returns has settled; a rejection resets the stream with INTERNAL_ERROR.
   */
  onStream?: ((stream: HtxStream) => void | Promise<void>) | undefined;
  /** A client takes stream 2 with this (HTX 1.1 §8); without it the server's stream 2 is refused. */
  onControlStream?: ((stream: HtxStream) => void | Promise<void>) | undefined;
}

/** Counters of a connection. */
export interface ConnectionStats extends Readonly<SessionStats> {
  /** Writes to the duplex. */
  readonly writes: number;
  /** Reads from the duplex. */
  readonly reads: number;
  /** The last measured round trip in ms, where one was measured. */
  readonly roundTripMs: number | undefined;
}

interface Ping {
  readonly data: Uint8Array;
  /** When it was asked; `undefined` while it waits. */
  at: number | undefined;
  readonly done: PromiseWithResolvers<number>;
}

/**
 * An encrypted, multiplexed connection. Made by `connect()` and `serve()` of `@betanet/htx/transport`; the
 * constructor is for carriers and handshakes of one's own.
 *
 * `await using` closes it.
 */
export class HtxConnection implements AsyncDisposable {
  /** Settles at once: a connection is made of a finished handshake. There for the shape of WebTransport. */
  readonly ready: Promise<void> = RESOLVED;
  /**
   * How the connection ended, once the duplex below has ended too. An end by NO_ERROR or GOING_AWAY, or by this
   * side's own `close()`, resolves.
   *
   * @throws {HtxError} why it ended otherwise: `TRUNCATED` for an end without CLOSE, `HANDSHAKE_FAILED` where the
   * server never spoke, or the code of either side; left alone, that is no unhandled rejection
   */
  readonly closed: Promise<CloseInfo>;
  /** The peer's static public key, proven by the handshake: 32 bytes. */
  readonly remoteStatic: Bytes;
  /** What the handshake was. */
  readonly handshake: HandshakeInfo;
  /** Which side this is. */
  readonly role: "client" | "server";
  /** Where this side stands, if the carrier tells. */
  readonly localAddr: DuplexAddr | undefined;
  /** Where the peer stands, if the carrier tells. */
  readonly remoteAddr: DuplexAddr | undefined;

  readonly #session: HtxSession;
  readonly #clock: Clock;
  readonly #carrier: Carrier;
  readonly #closed: PromiseWithResolvers<CloseInfo> = deferred();
  readonly #onStream: ConnectionInit["onStream"];
  readonly #onControlStream: ConnectionInit["onControlStream"];
  readonly #slots: PromiseWithResolvers<void>[] = [];
  /** Questions without an answer, oldest first: those that were asked, then those that wait. */
  readonly #pings: Ping[] = [];
  readonly #keyUpdates: Set<(sending: boolean) => void> = new Set();
  readonly #incoming: HtxStream[] = [];
  #incomingWaiter: (() => void) | undefined;
  #incomingRefused = false;
  #incomingStreams: ReadableStream<HtxStream> | undefined;
  #pending: Uint8Array;
  #flushing = false;
  #writeSince: number | undefined;
  /** When the last write was through. */
  #wroteAt = -Infinity;
  /** Writes by the application that waiting for a turn of the event loop gathered lately, on average. */
  #gain = 0;
  /** Writes that are not to wait for one, before the next that is to. */
  #hurried = TRY_AFTER;
  #timer: (() => void) | undefined;
  #timerAt = Infinity;
  #reading: Promise<void> = RESOLVED;
  #ending = false;
  #writes = 0;
  #reads = 0;
  #pingCount = 0;

  /** Binds a session to `duplex`, whose streams (or `io`) are the connection's from now on. */
  constructor(duplex: Duplex, init: ConnectionInit) {
    this.role = init.role;
    this.remoteStatic = init.remoteStatic;
    this.handshake = init.handshake;
    this.localAddr = duplex.localAddr;
    this.remoteAddr = duplex.remoteAddr;
    this.closed = this.#closed.promise;
    this.closed.catch(() => {});
    this.#clock = init.clock ?? SYSTEM_CLOCK;
    this.#onStream = init.onStream;
    this.#onControlStream = init.onControlStream;
    this.#pending = init.pending ?? EMPTY;
    this.#session = new HtxSession({
      role: init.role,
      keys: init.keys,
      limits: init,
      now: () => this.#clock.now(),
      acceptControlStream: init.onControlStream !== undefined,
      createStream: (session, id) => new HtxStream(session, id),
      ...(init.crypto && { crypto: init.crypto }),
      events: {
        output: () => this.#flushSoon(),
        stream: (stream) => this.#accept(stream as HtxStream),
        slot: () => this.#slots.shift()?.resolve(),
        pong: (data) => this.#onPong(data),
        keyUpdate: (sending) => this.#onKeyUpdate(sending),
        closing: (info, error) => this.#onClosing(info, error),
      },
    });
    const received = init.received ?? EMPTY;
    if (duplex.io !== undefined) {
      this.#carrier = new DirectCarrier(duplex.io, this.#session);
      if (received.length > 0) this.#session.receive(received);
    } else {
      this.#carrier = new StreamCarrier(duplex, this.#session, received);
    }
    duplex.limitReceive?.(() => this.#session.receiveCredit);
    if (this.#pending.length > 0) this.#flushSoon();
    this.#reading = this.#receiveAll();
    if (!this.#flushing) this.#arm();
  }

  /** Counters, live. */
  get stats(): ConnectionStats {
    return {
      ...this.#session.stats,
      writes: this.#writes,
      reads: this.#reads,
      roundTripMs: this.#session.roundTrip,
    };
  }

  /** Streams of this side's that are open now. */
  get openStreams(): number {
    return this.#session.localStreams;
  }

  /** Streams that this side may have open at once; {@linkcode HtxConnection.createBidirectionalStream} waits past it. */
  get maxOpenStreams(): number {
    return this.#session.limits.maxLocalStreams;
  }

  /** Whether no more streams can be opened. */
  get closing(): boolean {
    return this.#session.closing;
  }

  /** Whether {@linkcode HtxConnection.drain} was called here. */
  get draining(): boolean {
    return this.#session.draining;
  }

  /** Whether a frame of the peer's arrived: a client does not know before that it was let in. */
  get heard(): boolean {
    return this.#session.heard;
  }

  /**
   * Opens a stream. The peer learns of it with its first data. Waits while `maxLocalStreams` are open.
   *
   * @throws {HtxError} why the connection ended, or `CLOSED`, or `GOING_AWAY` when it is draining
   */
  async createBidirectionalStream(options: { signal?: AbortSignal | undefined } = {}): Promise<HtxStream> {
    const { signal } = options;
    signal?.throwIfAborted();
    let stream = this.#slots.length > 0 ? undefined : this.#session.openStream();
    for (let again = false; stream === undefined; again = true) {
      await this.#waitForSlot(signal, again);
      if (signal?.aborted) {
        this.#slots.shift()?.resolve(); // the place that was given and not taken is the next one's
        throw signal.reason;
      }
      stream = this.#session.openStream();
    }
    return own(stream);
  }

  /** Waits behind those who wait; who was woken in vain (`again`), in front of them. */
  #waitForSlot(signal: AbortSignal | undefined, again: boolean): Promise<void> {
    if (this.#session.closing) return Promise.reject(this.#session._closedError());
    const waiter = deferred<void>();
    if (again) this.#slots.unshift(waiter);
    else this.#slots.push(waiter);
    if (signal === undefined) return waiter.promise;
    const onAbort = () => {
      const at = this.#slots.indexOf(waiter);
      if (at < 0) return; // it has been given the place already
      this.#slots.splice(at, 1);
      waiter.reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return waiter.promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /**
   * Opens stream 2, which only a server does, once (HTX 1.1 §8).
   *
   * @throws {TypeError} on a client, or the second time
   * @throws {HtxError} when the connection has ended
   */
  openControlStream(): HtxStream {
    return own(this.#session.openControlStream());
  }

  /** Calls `listener` after each replacement of keys; `sending` says in which direction. Returns what takes that back. */
  onKeyUpdate(listener: (sending: boolean) => void): () => void {
    this.#keyUpdates.add(listener);
    return () => this.#keyUpdates.delete(listener);
  }

  #onKeyUpdate(sending: boolean): void {
    for (const listener of this.#keyUpdates) {
      try {
        listener(sending);
      } catch {
        // the listener's to report: frames are being opened or sealed, and others wait to be told
      }
    }
  }

  /** Replaces the keys of the sending direction with the next frame. It happens by itself, too (HTX 1.1 §2). */
  updateKey(): void {
    this.#session.updateKey();
  }

  /** The streams that the peer opens, in order. Closes when the connection ends well, errors when it does not. */
  get incomingBidirectionalStreams(): ReadableStream<HtxStream> {
    if (this.#onStream !== undefined) throw new TypeError("Cannot take streams: onStream takes them");
    return this.#incomingStreams ??= new ReadableStream<HtxStream>({
      pull: (controller) => this.#pullIncoming(controller),
      cancel: () => {
        this.#incomingRefused = true;
        for (const stream of this.#incoming.splice(0)) refuse(stream, "REFUSED");
        this.#wakeIncoming();
      },
    }, { highWaterMark: 0 });
  }

  async #pullIncoming(controller: ReadableStreamDefaultController<HtxStream>): Promise<void> {
    while (!this.#incomingRefused) {
      const stream = this.#incoming.shift();
      if (stream !== undefined) {
        controller.enqueue(stream);
        stream.release();
        return;
      }
      if (this.#session.closing) {
        if (this.#session.error !== undefined) controller.error(this.#session.error);
        else controller.close();
        return;
      }
      await new Promise<void>((resolve) => this.#incomingWaiter = resolve);
    }
  }

  #accept(stream: SessionStream): void {
    const incoming = own(stream);
    incoming.hold();
    const handler = incoming.id === CONTROL_STREAM_ID ? this.#onControlStream : this.#onStream;
    if (handler === undefined) {
      if (this.#incomingRefused) return refuse(incoming, "REFUSED");
      this.#incoming.push(incoming);
      this.#wakeIncoming();
      return;
    }
    // The handler runs once the batch of frames that opened the stream is through: its data is there to be read.
    queueMicrotask(() => {
      try {
        const handled = handler(incoming);
        if (handled === undefined) return incoming.release();
        handled.then(() => incoming.release(), () => refuse(incoming, "INTERNAL_ERROR"));
      } catch {
        refuse(incoming, "INTERNAL_ERROR");
      }
    });
  }

  #wakeIncoming(): void {
    const wake = this.#incomingWaiter;
    this.#incomingWaiter = undefined;
    wake?.();
  }

  /**
   * Measures a round trip through the session, in ms.
   *
   * @throws {HtxError} when the connection ends before the answer
   */
  ping(options: { signal?: AbortSignal | undefined } = {}): Promise<number> {
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#session.closing) return Promise.reject(this.#session._closedError());
    const data = new Uint8Array(8);
    new DataView(data.buffer).setBigUint64(0, BigInt(++this.#pingCount));
    const ping: Ping = { data, at: undefined, done: deferred() };
    this.#pings.push(ping);
    this.#askPings();
    const { promise } = ping.done;
    if (signal === undefined) return promise;
    const onAbort = () => {
      // One that was asked keeps its place until its answer comes: the peer has it to answer all the same.
      if (ping.at === undefined) this.#pings.splice(this.#pings.indexOf(ping), 1);
      ping.done.reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** Asks as many questions as the peer is sure to answer; the others wait for an answer to make room. */
  #askPings(): void {
    for (const ping of this.#pings.slice(0, MAX_QUESTIONS)) {
      if (ping.at !== undefined) continue;
      ping.at = this.#clock.now();
      this.#session.ping(ping.data);
    }
  }

  #onPong(data: Uint8Array): void {
    const at = this.#pings.findIndex((ping) => ping.data.every((byte, i) => byte === data[i]));
    const answered = this.#pings[at];
    if (answered?.at === undefined || data.length !== 8) return;
    // Answers come in order: the peer has dropped what is older.
    for (const lost of this.#pings.splice(0, at + 1)) {
      if (lost === answered) lost.done.resolve(this.#clock.now() - answered.at);
      else lost.done.reject(new HtxError("EXCESSIVE_LOAD", "Ping was not answered: the peer dropped it"));
    }
    this.#askPings();
  }

  /**
   * Refuses new streams of the peer's (GOING_AWAY), waits until the open ones are finished, then ends the connection
   * well (HTX 1.1 §3). Who waits for a place for a stream of this side's is told so at once. Settles as
   * {@linkcode HtxConnection.closed}.
   */
  drain(): Promise<CloseInfo> {
    this.#session.drain();
    for (const waiter of this.#slots.splice(0)) {
      waiter.reject(new HtxError("GOING_AWAY", "Cannot open stream: the session is draining"));
    }
    return this.closed;
  }

  /**
   * Ends the connection. Data already taken that fits the peer's windows still goes out, as long as no write of it takes
   * more than `closeTimeoutMs`; streams that are not finished error with CANCELLED on both sides. Settles when the duplex
   * has ended, at most twice `closeTimeoutMs` after the last of those writes: for the peer's CLOSE, and for its end.
   */
  async close(info: { code?: CloseCodeName | number; reason?: string } = {}): Promise<void> {
    this.#session.close(info.code, info.reason);
    await this.closed.catch(() => {}); // why it ended is for who asks `closed`
  }

  /** Ends the connection and the duplex at once: the peer sees it break. */
  abort(reason?: HtxError): void {
    this.#session.abort(reason ?? new HtxError("CLOSED", "Connection was aborted"));
    this.#settle();
  }

  /** Closes, and waits for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #onClosing(_info: CloseInfo, error: HtxError | undefined): void {
    if (this.#slots.length > 0 || this.#pings.length > 0) {
      const why = error ?? new HtxError("CLOSED", "Connection has ended");
      for (const waiter of this.#slots.splice(0)) waiter.reject(why);
      for (const ping of this.#pings.splice(0)) ping.done.reject(why);
    }
    this.#wakeIncoming();
    this.#flushSoon();
    if (this.#writeSince !== undefined) {
      // From here on a write that is stuck holds the end up, and an end is given less time.
      this.#writeSince = this.#clock.now();
      this.#arm();
    }
  }

  // ------------------------------------------------------------------ moving bytes

  async #receiveAll(): Promise<void> {
    const session = this.#session;
    try {
      while (await this.#carrier.receive()) {
        this.#reads++;
        this.#arm();
        if (session.done) this.#endSoon();
        for (let turn = 0; turn < ANSWER_TURNS && this.#aboutToWrite; turn++) await undefined;
      }
      session.receiveEnd();
    } catch (error) {
      session.broke(error);
    }
    if (this.#carrier instanceof DirectCarrier) this.#carrier.ended();
    this.#flushSoon();
    if (session.done) this.#endSoon();
  }

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    this.#flush();
  }

  /** Whether a flush has begun whose write has not. */
  get #aboutToWrite(): boolean {
    return this.#flushing && this.#writeSince === undefined;
  }

  /** Waits while the application goes on writing on the same occasion. */
  async #gathered(): Promise<void> {
    const session = this.#session;
    let puts = session.puts;
    for (
      let turn = 0, quiet = 0;
      quiet < FLUSH_TURNS && turn < MAX_FLUSH_TURNS && !session.creditDue;
      turn++
    ) {
      await undefined;
      if (session.puts === puts) quiet++;
      else quiet = 0;
      puts = session.puts;
    }
  }

  /** Whether what is due may wait for what is written before the event loop turns. */
  #mayWait(now: number): boolean {
    const session = this.#session;
    if (
      now - this.#wroteAt >= BUSY_MS || session.creditDue || session.closing ||
      session.outputSize(SMALL_BATCH) >= SMALL_BATCH
    ) return false;
    if (this.#gain >= WORTHWHILE_GAIN) return true;
    if (this.#hurried-- > 0) return false;
    this.#hurried = TRY_AFTER + this.#writes % TRY_SPREAD;
    return true;
  }

  async #flush(): Promise<void> {
    const session = this.#session;
    await this.#gathered();
    let now = this.#clock.now(); // asked for once a batch: it costs as much as sealing a small frame
    if (this.#clock.turn !== undefined && this.#mayWait(now)) {
      const { puts } = session;
      await this.#clock.turn();
      this.#gain += (session.puts - puts - this.#gain) * GAIN_WEIGHT;
      now = this.#clock.now();
    }
    try {
      while ((session.outputDue || this.#pending.length > 0) && !this.#ending) {
        const head = this.#pending;
        this.#pending = EMPTY;
        const due = session.outputDue;
        const size = head.length + (due ? session.outputSize(SMALL_BATCH) : 0);
        const pool = size <= SMALL_BATCH ? smallSendPool : largeSendPool;
        const buffer = pool.take();
        buffer.set(head);
        const length = head.length + (due ? session.fill(buffer.subarray(head.length), now) : 0);
        if (length > 0) {
          this.#writes++;
          this.#writeSince = now;
          const written = this.#carrier.write(buffer.subarray(0, length));
          this.#arm(); // once the bytes are on their way: it need not hold them up
          await written;
          this.#wroteAt = now = this.#clock.now();
          this.#writeSince = undefined;
          // Less than a frame came in meanwhile: who wrote it may be about to write more.
          if (session.outputDue && session.outputSize(MAX_PLAINTEXT_LENGTH) < MAX_PLAINTEXT_LENGTH) {
            await this.#gathered();
            now = this.#clock.now(); // the application may have taken long
          }
        }
        pool.give(buffer); // not where the write failed: who knows who still reads it
        if (length === 0) break;
      }
    } catch (error) {
      session.broke(error);
    } finally {
      this.#writeSince = undefined;
      this.#flushing = false;
    }
    this.#arm();
    if (session.done) this.#endSoon();
  }

  // ------------------------------------------------------------------ time

  #arm(): void {
    if (this.#ending) return;
    const session = this.#session;
    const { writeTimeoutMs, closeTimeoutMs } = session.limits;
    let next = session.nextTimeout ?? Infinity;
    if (this.#writeSince !== undefined) {
      const patience = session.closing ? closeTimeoutMs : writeTimeoutMs;
      if (patience > 0 || session.closing) next = Math.min(next, this.#writeSince + patience);
    }
    // A timer that fires early finds nothing to do and is set again: cheaper than moving it with every frame.
    if (next >= this.#timerAt) return;
    this.#timer?.();
    this.#timerAt = next;
    this.#timer = this.#clock.setTimer(Math.max(0, next - this.#clock.now()), () => this.#onTimer());
  }

  #onTimer(): void {
    this.#timer = undefined;
    this.#timerAt = Infinity;
    const session = this.#session;
    session.tick();
    const { writeTimeoutMs, closeTimeoutMs } = session.limits;
    if (this.#writeSince !== undefined) {
      const patience = session.closing ? closeTimeoutMs : writeTimeoutMs;
      if ((patience > 0 || session.closing) && this.#clock.now() - this.#writeSince >= patience) {
        session.abort(new HtxError("TIMEOUT", `Session ended: a write made no progress for ${patience} ms`));
        return this.#settle();
      }
    }
    // The second that a CLOSE gives the peer is over (HTX 1.1 §3): nothing more is waited for.
    if (session.done) this.#endSoon(false);
    else this.#arm();
  }

  // ------------------------------------------------------------------ the end

  /** Both CLOSEs are through, or the peer has ended: ends this side, waits a little for the other, then lets go. */
  #endSoon(wait = true): void {
    if (this.#ending || this.#flushing) return;
    this.#ending = true;
    this.#timer?.();
    this.#timer = this.#clock.setTimer(this.#session.limits.closeTimeoutMs, () => this.#settle());
    Promise.all([this.#endWriting(), wait && this.#reading]).then(() => this.#settle());
  }

  async #endWriting(): Promise<void> {
    try {
      await this.#carrier.closeWrite();
    } catch {
      // the peer may be gone
    }
  }

  #settled = false;
  #settle(): void {
    if (this.#settled) return;
    this.#settled = this.#ending = true;
    this.#timer?.();
    this.#timer = undefined;
    this.#carrier.close();
    this.#session.wipe();
    const { closeInfo, error } = this.#session;
    if (error !== undefined) this.#closed.reject(error);
    else if (closeInfo !== undefined) this.#closed.resolve(closeInfo);
  }
}

function own(stream: SessionStream): HtxStream {
  if (!(stream instanceof HtxStream)) {
    throw new TypeError("Cannot use stream: the connection did not make it");
  }
  return stream;
}

/** Nobody takes the stream (REFUSED), or its handler failed: its error is the handler's to report. */
function refuse(stream: HtxStream, code: "REFUSED" | "INTERNAL_ERROR"): void {
  stream.reset(code);
  stream.release();
}

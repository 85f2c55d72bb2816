/**
 * The session engine (HTX 1.1 §2 to §4): received bytes in, events out; commands in, bytes to send out. Sans-IO:
 * it has no sockets and no timers, and clock and randomness come in through options, so that every rule can be
 * tested at its edge without waiting.
 *
 *     receive(bytes) ──► FrameBuffer ──► open, account ──► SessionStream queues ──► read()
 *     write(data)    ──► SessionStream queue ──► fill(): schedule, seal, account ──► bytes of one write
 *
 * Bytes are sealed at the last moment, in {@linkcode HtxSession.fill}: whatever gathered on a stream while the
 * last write was under way leaves as one frame, and an idle session sends at once. Nothing waits for a timer.
 *
 * @module
 */

import {
  type CloseFrame,
  codeNumber,
  decodeClose,
  encodeClose,
  MAX_REASON_LENGTH,
  protocolError,
  readVarint,
  remoteError,
  sameBytes,
  shortReason,
} from "./close.ts";
import { IdMap } from "./_id_map.ts";
import { type Bytes, selectCrypto } from "./crypto.ts";
import { CloseCode, type CloseCodeName, closeCodeName, HtxError } from "./errors.ts";
import { type Frame, FrameBuffer, FrameType, MAX_PLAINTEXT_LENGTH } from "./frame.ts";
import { TrafficKeys } from "./keys.ts";
import {
  INITIAL_WINDOW,
  MAX_BYTES_PER_KEY,
  MAX_FRAMES_PER_KEY,
  MAX_WINDOW,
  type ResolvedLimits,
  resolveLimits,
} from "./limits.ts";
import { LoadGuard, ResetPace } from "./load_guard.ts";
import { FRAME_OVERHEAD, FrameSealer } from "./sealer.ts";
import { CONTROL_STREAM_ID, SessionStream } from "./session_stream.ts";
import { SessionTimers } from "./session_timers.ts";
import type { CloseInfo, SessionEvents, SessionOptions, SessionStats } from "./session_types.ts";
import { encodeVarint, MAX_VARINT } from "./varint.ts";
import { ReceiveWindows } from "./windows.ts";

/** Bytes of data in a PING that asks or answers (HTX 1.1 §3). */
export const MAX_PING_DATA_LENGTH = 32;
/** Answers to PINGs that may wait to be sent (HTX 1.1 §3). */
const MAX_WAITING_PONGS = 16;
/** Questions of applications that every peer has room for, beside one of a keepalive and one that measures a round trip. */
export const MAX_QUESTIONS: number = MAX_WAITING_PONGS - 2;
/** After this many ms without an answer a round trip is measured anew: the peer has dropped the question. */
const PROBE_PATIENCE_MS = 10_000;
/** Resets that may wait to be sent: a peer that does not read cannot have more gathered for it by opening streams. */
const MAX_WAITING_RESETS = 10_000;

const PING_ASK = 0;
const PING_ANSWER = 1;
const PING_PADDING = 2;
/** A PING of padding that is there to be a frame. */
const FILLER = /* @__PURE__ */ new Uint8Array([PING_PADDING]);

/** Bytes of room that {@linkcode HtxSession.fill} needs before it begins a frame: the largest control frame, a CLOSE, and what goes before it. */
export const MIN_FILL_LENGTH: number = FRAME_OVERHEAD + 16 + MAX_REASON_LENGTH;
/** Fewer bytes than this are not worth a frame right behind a full one of the same stream. */
const TAIL = 1024;
/** Bytes in a batch after which no more frames are begun: a write of four full ones costs a third less than four writes. */
const FULL_BATCH = 4 * MAX_PLAINTEXT_LENGTH;
/** What one call of {@linkcode HtxSession.fill} can use at most: one full data frame behind an almost full batch. */
export const MAX_FILL_LENGTH: number = FULL_BATCH + FRAME_OVERHEAD + MAX_PLAINTEXT_LENGTH;

/** The engine of one session. See the module text for how bytes flow through it. */
export class HtxSession {
  /** Which side this is. */
  readonly role: "client" | "server";
  /** The bounds in force. */
  readonly limits: ResolvedLimits;
  /** The handshake hash; public. */
  readonly handshakeHash: Uint8Array;
  /** Counters. */
  readonly stats: SessionStats = {
    framesSent: 0,
    framesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    dataSent: 0,
    dataReceived: 0,
    batches: 0,
    bytesGathered: 0,
    framesDropped: 0,
    rekeysSent: 0,
    rekeysReceived: 0,
    windowUpdatesSent: 0,
    streamsOpened: 0,
    streams: 0,
  };
  /** How often data was given to a stream: whoever flushes can see whether the application is still at it. */
  puts = 0;
  /** How the session ends or ended; `undefined` while it lives. */
  closeInfo: CloseInfo | undefined;
  /** Why it did not end well, where it did not. */
  error: HtxError | undefined;

  readonly #events: SessionEvents;
  readonly #now: () => number;
  readonly #createStream: (session: HtxSession, id: number) => SessionStream;
  readonly #acceptControl: boolean;
  readonly #sealer: FrameSealer;
  readonly #receiveKeys: TrafficKeys;
  readonly #buffer: FrameBuffer = new FrameBuffer();

  // Streams.
  readonly #streams: IdMap<SessionStream> = new IdMap();
  /** Streams of this side's that have sent nothing yet, by their age; they get their id with their first frame. */
  readonly #unopened: IdMap<SessionStream> = new IdMap();
  #created = 0;
  #nextLocalId: number;
  #highestPeerId = 0;
  #peerCount = 0;
  #localCount = 0;
  #control: "none" | "open" | "done" = "none";
  #controlStream: SessionStream | undefined;
  #draining = false;

  // What is due to be sent, in the order in which it goes out.
  readonly #ready: SessionStream[] = [];
  readonly #credits: SessionStream[] = [];
  readonly #resets: CloseFrame[] = [];
  /** How many of them are of streams of this side's. */
  #ownResets = 0;
  /** Resets of streams of this side's that wait until the peer will not count them as too many (HTX 1.1 §4). */
  readonly #heldResets: CloseFrame[] = [];
  readonly #resetPace: ResetPace = new ResetPace();
  readonly #pings: Uint8Array[] = [];
  #pongs = 0;
  #padding = -1;
  #close: CloseFrame | undefined;
  #closeState: "none" | "queued" | "sent" = "none";
  readonly #gather = (length: number): Uint8Array => {
    this.stats.bytesGathered += length;
    return scratch ??= new Uint8Array(MAX_PLAINTEXT_LENGTH);
  };

  // What the peer did.
  #anyFrame = false;
  #closeReceived = false;
  #deaf = false;
  #ended = false;
  readonly #windows: ReceiveWindows;
  readonly #load: LoadGuard = new LoadGuard();

  // Time.
  readonly #timers: SessionTimers;
  /** KEY_UPDATEs sealed in this call of `fill` that nobody has been told of. */
  #updates = 0;
  #probe: { readonly data: Uint8Array; readonly at: number } | undefined;
  #probeCount = 0;

  /** Makes a session over the keys of a finished handshake. */
  constructor(options: SessionOptions) {
    const crypto = options.crypto ?? selectCrypto();
    this.role = options.role;
    this.limits = resolveLimits(options.limits);
    this.handshakeHash = options.keys.handshakeHash;
    this.#events = options.events ?? {};
    this.#now = options.now ?? (() => performance.now());
    this.#createStream = options.createStream ?? ((session, id) => new SessionStream(session, id));
    this.#acceptControl = options.acceptControlStream ?? false;
    const { client, server, handshakeHash } = options.keys;
    const toServer = new TrafficKeys(crypto, "client-to-server", client, handshakeHash);
    const toClient = new TrafficKeys(crypto, "server-to-client", server, handshakeHash);
    this.#receiveKeys = this.role === "client" ? toClient : toServer;
    this.#nextLocalId = this.role === "client" ? 1 : 4;
    this.#windows = new ReceiveWindows(this.limits);
    const now = this.#now();
    this.#sealer = new FrameSealer(
      this.role === "client" ? toServer : toClient,
      this.limits,
      this.stats,
      now,
      () => {
        this.#updates++;
      },
    );
    const random = options.random ?? ((length: number) => crypto.randomBytes(length));
    this.#timers = new SessionTimers(this.limits, random, now);
  }

  /** Whether no more streams can be opened and no more data sent. */
  get closing(): boolean {
    return this.closeInfo !== undefined;
  }

  /** Whether {@linkcode HtxSession.drain} was called: streams of the peer's are refused. */
  get draining(): boolean {
    return this.#draining;
  }

  /** Whether nothing more will be sent or is waited for: the duplex can be ended. */
  get done(): boolean {
    return this.closeInfo !== undefined &&
      (this.#ended || (this.#closeReceived && this.#closeState === "sent"));
  }

  /** Whether a frame of the peer's has opened: until then its consent to the handshake is not known. */
  get heard(): boolean {
    return this.#anyFrame;
  }

  /** Generations of both directions: how often their keys were replaced. */
  get generations(): { readonly sending: number; readonly receiving: number } {
    return { sending: this.#sealer.generation, receiving: this.#receiveKeys.generation };
  }

  /** The last measured round trip in ms; `undefined` where none was. */
  get roundTrip(): number | undefined {
    return this.#windows.roundTrip;
  }

  /** Stream data that the peer may have under way: its credit on the streams that are open, and on those it may yet open. */
  get receiveCredit(): number {
    let credit = Math.max(0, this.limits.maxPeerStreams - this.#peerCount) * INITIAL_WINDOW;
    for (const stream of this.#streams.values()) {
      if (!stream._receiveEnded) credit += stream._receiveWindow;
    }
    return credit;
  }

  /** Streams of this side's that are open. */
  get localStreams(): number {
    return this.#localCount;
  }

  /** Whether `id` is one that this side opens. */
  isLocal(id: number): boolean {
    return (id % 2 === 1) === (this.role === "client");
  }

  // ------------------------------------------------------------------ received bytes

  /** Room to read received bytes into; say with {@linkcode HtxSession.received} how many came. */
  receiveSpace(): Uint8Array {
    return this.#buffer.space();
  }

  /** The buffer behind {@linkcode HtxSession.receiveSpace}, for owners that pool theirs. */
  get receiveBuffer(): FrameBuffer {
    return this.#buffer;
  }

  /** Handles the first `length` bytes of {@linkcode HtxSession.receiveSpace}. Never throws for what a peer does. */
  received(length: number): void {
    this.#buffer.filled(length);
    this.#process();
  }

  /** Handles a chunk of received bytes. Never throws for what a peer does. */
  receive(chunk: Uint8Array): void {
    this.#buffer.push(chunk);
    this.#process();
  }

  /** Handles frames that were decoded elsewhere; `pending` is how many bytes of a begun frame are held there. */
  receiveFrames(frames: readonly Frame[], pending: number): void {
    let opened = 0;
    try {
      for (const { type, streamId = 0, header, sealed } of frames) {
        if (header === undefined) {
          throw new TypeError("Cannot receive frame: it has no header; decode it from bytes");
        }
        if (this.#deaf) break;
        this.#frame(type, streamId, header, sealed);
        opened++;
      }
    } catch (error) {
      this.#broken(error);
    }
    this.#noteBegun(this.#deaf ? 0 : pending, opened);
  }

  /** The peer ended its direction of the duplex. */
  receiveEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timers.frameSince = undefined;
    if (this.closing) return this.#stopFlushing();
    if (!this.#anyFrame && this.role === "client") {
      // HTX 1.1 §1: the initiator reports an end before the first frame as a failed handshake.
      return this.#terminate(
        new HtxError("HANDSHAKE_FAILED", "Cannot open session: the peer ended it before its first frame"),
      );
    }
    this.#terminate(new HtxError("TRUNCATED", "Session ended without CLOSE"));
  }

  /** The duplex broke: nothing can be sent or received any more. */
  broke(cause: unknown): void {
    this.abort(
      this.#anyFrame || this.role === "server"
        ? new HtxError("TRUNCATED", "Session ended without CLOSE: the connection broke", { cause })
        : new HtxError(
          "HANDSHAKE_FAILED",
          "Cannot open session: the connection broke before its first frame",
          { cause },
        ),
    );
  }

  /** Ends the session at once, without CLOSE: the duplex is ended by this side. */
  abort(error: HtxError): void {
    this.#deaf = true; // what is still read is not looked at: the keys are about to go
    if (this.#ended) return;
    this.#ended = true;
    this.#timers.frameSince = undefined;
    if (this.closing) return this.#stopFlushing();
    this.#terminate(error);
  }

  /** Ends the session for an error: one CLOSE with its code, then nothing (HTX 1.1 §3). */
  fail(error: HtxError): void {
    this.#deaf = true;
    if (this.closing) return;
    this.#queueClose(error.closeCode, "");
    this.#terminate(error);
  }

  #process(): void {
    const buffer = this.#buffer;
    let opened = 0;
    try {
      while (!this.#deaf && buffer.next()) {
        const { type, streamId, start, bodyStart, end } = buffer.frame;
        this.#frame(
          type,
          streamId,
          buffer.bytes.subarray(start, bodyStart),
          buffer.bytes.subarray(bodyStart, end),
        );
        opened++;
      }
    } catch (error) {
      this.#broken(error);
    }
    if (this.#deaf) buffer.discard();
    this.#noteBegun(buffer.pending, opened);
  }

  /** What a peer's bytes throw ends the session; anything else is a fault of ours and must not be hidden. */
  #broken(error: unknown): void {
    if (!(error instanceof HtxError)) throw error;
    this.fail(error);
  }

  #noteBegun(pending: number, opened: number): void {
    if (pending === 0) this.#timers.frameSince = undefined;
    else if (opened > 0 || this.#timers.frameSince === undefined) this.#timers.frameSince = this.#now();
  }

  // ------------------------------------------------------------------ frames received

  #frame(type: number, streamId: number, header: Uint8Array, sealed: Uint8Array): void {
    if (this.#closeReceived) return; // frames after a CLOSE are not opened
    const keys = this.#receiveKeys;
    if (keys.counter >= MAX_FRAMES_PER_KEY) {
      throw protocolError(`more than ${MAX_FRAMES_PER_KEY} frames came under one key`);
    }
    const plaintext = keys.open(header, sealed);
    if (plaintext === undefined) {
      throw new HtxError("AUTH_FAILED", "Cannot open frame: it does not authenticate");
    }
    if (keys.bytes > MAX_BYTES_PER_KEY) throw protocolError("more than 8 GiB came under one key");
    this.#anyFrame = true;
    const stats = this.stats;
    stats.framesReceived++;
    stats.bytesReceived += header.length + sealed.length;
    if (streamId > MAX_VARINT) throw protocolError("a stream id is above 2^53-1");
    let idle = false;
    switch (type) {
      case FrameType.STREAM:
        this.#onData(streamId, plaintext, plaintext.length === 0);
        break;
      case FrameType.STREAM_END:
        this.#onData(streamId, plaintext, true);
        break;
      case FrameType.WINDOW_UPDATE:
        this.#onWindowUpdate(streamId, plaintext);
        break;
      case FrameType.PING:
        idle = plaintext.length === 0;
        if (!idle) this.#onPing(plaintext);
        break;
      case FrameType.CLOSE:
        this.#onClose(plaintext);
        break;
      case FrameType.KEY_UPDATE:
        this.#onKeyUpdate(plaintext);
        break;
      default:
        idle = true;
        stats.framesDropped++;
    }
    this.#load.frame(idle);
  }

  #onData(id: number, data: Bytes, end: boolean): void {
    const stream = this.#streamFor(id);
    if (stream === undefined || stream._finished) { // or reset by who was just told of it
      this.stats.framesDropped++;
      return;
    }
    if (stream._receiveEnded) {
      return this.#refuse(stream, "PROTOCOL_ERROR", "data after the end of its direction");
    }
    if (data.length > stream._receiveWindow) {
      throw new HtxError(
        "FLOW_CONTROL_ERROR",
        `Session ended: ${data.length} bytes past a window of ${stream._receiveWindow}`,
        {
          streamId: id,
        },
      );
    }
    stream._receiveWindow -= data.length;
    stream.bytesReceived += data.length;
    this.stats.dataReceived += data.length;
    if (data.length > 0) {
      if (stream._creditedAt === 0) stream._creditedAt = this.#now();
      this.#windows.data(stream);
      stream._receive.push(data);
    }
    if (end) {
      stream._receiveEnded = true;
      if (stream._sendEnded) this.#finish(stream, undefined);
    }
    stream._emitReadable();
  }

  /** The stream that a STREAM or STREAM_END frame is for, opened by it if need be; `undefined` where it is to be dropped. */
  #streamFor(id: number): SessionStream | undefined {
    const known = this.#streams.get(id);
    if (known !== undefined) {
      if (id === CONTROL_STREAM_ID && known._local) throw protocolError("a client sent data on stream 2");
      if (!known._opened) throw protocolError(`stream ${id} is not the peer's to open`);
      return known;
    }
    if (id === 0) throw protocolError("a STREAM frame has stream id 0");
    if (id === CONTROL_STREAM_ID) return this.#openControlFromPeer();
    if (this.isLocal(id)) {
      if (id >= this.#nextLocalId) throw protocolError(`stream ${id} is not the peer's to open`);
      return undefined; // finished here
    }
    if (id <= this.#highestPeerId) return undefined; // finished or skipped
    this.#highestPeerId = id;
    if (this.closing) return undefined;
    if (this.#resets.length >= MAX_WAITING_RESETS) {
      throw new HtxError("EXCESSIVE_LOAD", "Session ended: the peer opens streams and reads no resets");
    }
    if (this.#draining) {
      this.#queueReset(id, CloseCode.GOING_AWAY, "");
      return undefined;
    }
    if (this.#peerCount >= this.limits.maxPeerStreams) {
      this.#queueReset(id, CloseCode.STREAM_LIMIT, "");
      return undefined;
    }
    this.#peerCount++;
    const stream = this.#adopt(id);
    this.#events.stream?.(stream);
    return stream;
  }

  #adopt(id: number): SessionStream {
    const stream = this.#createStream(this, id);
    stream._opened = true;
    this.#streams.set(id, stream);
    if (id === CONTROL_STREAM_ID) {
      this.#control = "open";
      this.#controlStream = stream;
    } else {
      this.stats.streamsOpened++;
      this.stats.streams++;
      this.#timers.idleSince = undefined;
    }
    return stream;
  }

  #openControlFromPeer(): SessionStream | undefined {
    if (this.role === "server") throw protocolError("a client sent data on stream 2");
    if (this.#control === "done" || this.closing) return undefined;
    if (!this.#acceptControl) {
      this.#control = "done";
      this.#queueReset(CONTROL_STREAM_ID, CloseCode.REFUSED, "");
      return undefined;
    }
    const stream = this.#adopt(CONTROL_STREAM_ID);
    stream._endQueued = true; // the client sends nothing on it, an end neither
    stream._sendEnded = true;
    this.#events.stream?.(stream);
    return stream;
  }

  #onWindowUpdate(id: number, plaintext: Uint8Array): void {
    const increment = readVarint(plaintext, 0);
    if (increment === undefined || increment.length !== plaintext.length) {
      throw protocolError("a WINDOW_UPDATE is not one varint");
    }
    if (increment.value === 0) throw protocolError("a WINDOW_UPDATE adds nothing");
    if (id === 0) throw protocolError("a WINDOW_UPDATE has stream id 0");
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      const neverOpened = id === CONTROL_STREAM_ID
        ? this.#control === "none"
        : this.isLocal(id)
        ? id >= this.#nextLocalId
        : id > this.#highestPeerId;
      if (neverOpened) throw protocolError(`a WINDOW_UPDATE came for stream ${id}, which is not open`);
      this.stats.framesDropped++;
      return;
    }
    if (!stream._opened) throw protocolError(`a WINDOW_UPDATE came for stream ${id}, which is not open`);
    if (stream._sendEnded) {
      this.stats.framesDropped++;
      return;
    }
    stream._sendWindow += increment.value;
    if (stream._sendWindow > MAX_WINDOW) throw protocolError(`the window of stream ${id} is above 2^31-1`);
    this._wake(stream);
  }

  #onPing(plaintext: Uint8Array): void {
    const kind = plaintext[0];
    if (kind !== PING_ASK && kind !== PING_ANSWER) return;
    const data = plaintext.subarray(1);
    if (data.length > MAX_PING_DATA_LENGTH) throw protocolError("a PING has more than 32 bytes of data");
    if (kind === PING_ASK) {
      if (this.#pongs >= MAX_WAITING_PONGS || this.closing) return;
      this.#pongs++;
      const pong = plaintext.slice();
      pong[0] = PING_ANSWER;
      this.#pings.push(pong);
      this.#due();
      return;
    }
    if (this.#probe !== undefined && sameBytes(data, this.#probe.data)) {
      this.#windows.measured(Math.max(0, this.#now() - this.#probe.at));
      this.#probe = undefined;
    } else if (!this.#timers.answers(data)) {
      this.#events.pong?.(data);
    }
  }

  #onClose(plaintext: Uint8Array): void {
    const close = decodeClose(plaintext);
    if (close === undefined) throw protocolError("a CLOSE cannot be parsed");
    if (close.streamId === 0) this.#onSessionClose(close.closeCode, close.reason);
    else this.#onReset(close.streamId, close.closeCode, close.reason);
  }

  #onReset(id: number, closeCode: number, reason: string): void {
    if (!this.isLocal(id)) this.#load.reset(this.#now());
    const stream = this.#streams.get(id);
    if (stream === undefined || stream._finished) {
      // A stream of the server's that was refused before anything came back is known by its id alone.
      this.stats.framesDropped++;
      return;
    }
    const error = remoteError(closeCode, reason, id);
    if (closeCode === CloseCode.NO_ERROR && stream._receiveEnded) {
      // HTX 1.1 §4: sent after the end of its own direction, it only asks to stop sending; what came stays readable.
      stream._send.clear();
      stream._sendEnded = true;
      stream._endQueued = true;
      stream.error = error;
      this.#finish(stream, undefined);
      stream._emitSent();
      return;
    }
    this.#drop(stream, error);
  }

  #onKeyUpdate(plaintext: Uint8Array): void {
    if (plaintext.length > 0) throw protocolError("a KEY_UPDATE is not empty");
    this.#load.keyUpdate(this.stats.framesReceived);
    this.#receiveKeys.update();
    this.stats.rekeysReceived++;
    const control = this.#controlStream;
    if (control !== undefined) control.bytesBeforeKeyUpdate = control.bytesReceived;
    this.#events.keyUpdate?.(false);
  }

  #onSessionClose(closeCode: number, reason: string): void {
    this.#closeReceived = true;
    if (this.#closeState === "none") {
      this.#queueClose(CloseCode.NO_ERROR, "");
    }
    if (this.closing) return;
    const orderly = closeCode === CloseCode.NO_ERROR || closeCode === CloseCode.GOING_AWAY;
    this.#conclude(
      { code: closeCodeName(closeCode), closeCode, reason, remote: true },
      orderly ? undefined : remoteError(closeCode, reason),
      () =>
        closeCode === CloseCode.NO_ERROR
          ? new HtxError("CANCELLED", "Stream ended: the peer closed the session", { remote: true })
          : remoteError(closeCode, reason),
    );
  }

  // ------------------------------------------------------------------ commands

  /**
   * Begins a stream; `undefined` where `maxLocalStreams` are open (the `slot` event tells when to ask again). The
   * peer learns of it with its first data.
   *
   * @throws {HtxError} the session's error, or `CLOSED` when it is ending
   */
  openStream(): SessionStream | undefined {
    if (this.closing) throw this._closedError();
    if (this.#draining) throw new HtxError("GOING_AWAY", "Cannot open stream: the session is draining");
    if (this.#localCount >= this.limits.maxLocalStreams) return undefined;
    this.#localCount++;
    const stream = this.#createStream(this, 0);
    stream._age = ++this.#created;
    this.#unopened.set(stream._age, stream);
    this.stats.streamsOpened++;
    this.stats.streams++;
    this.#timers.idleSince = undefined;
    return stream;
  }

  /**
   * Opens stream 2, once (HTX 1.1 §8).
   *
   * @throws {TypeError} on a client, or when it was opened before
   */
  openControlStream(): SessionStream {
    if (this.role === "client") throw new TypeError("Cannot open stream 2: only the server does");
    if (this.closing) throw this._closedError();
    if (this.#control !== "none") throw new TypeError("Cannot open stream 2: it was opened before");
    const stream = this.#adopt(CONTROL_STREAM_ID);
    stream._receiveEnded = true; // the client sends nothing on it
    return stream;
  }

  /**
   * Asks the peer to answer with the same data, at most 32 bytes: the `pong` event tells when it did. With more than
   * {@linkcode MAX_QUESTIONS} unanswered it may drop some, the engine's own among them.
   */
  ping(data: Uint8Array): void {
    if (data.length > MAX_PING_DATA_LENGTH) {
      throw new RangeError("Cannot ping: the data is longer than 32 bytes");
    }
    if (this.closing) throw this._closedError();
    this.#queuePing(PING_ASK, data);
  }

  /** Replaces the keys of the sending direction now, or as soon as the peer will not count it as one too many (HTX 1.1 §3). */
  updateKey(): void {
    if (this.closing) throw this._closedError();
    this.#sealer.updateAsked = true;
    this.#due();
  }

  /** Refuses streams of the peer's from now on; once the open ones are finished, ends the session well (HTX 1.1 §3). */
  drain(): void {
    if (this.#draining || this.closing) return;
    this.#draining = true;
    this.#closeIfDrained();
  }

  /** Ends the session. What fits the windows of data already given still goes out; unfinished streams error. Idempotent. */
  close(code: CloseCodeName | number = "NO_ERROR", reason = ""): void {
    if (this.closing) return;
    const closeCode = codeNumber(code);
    const short = shortReason(reason);
    this.#queueClose(closeCode, short);
    this.#conclude(
      { code: closeCodeName(closeCode), closeCode, reason: short, remote: false },
      undefined,
      () => new HtxError("CANCELLED", "Stream ended: the session was closed"),
      true,
    );
  }

  /** The error of calls on a session that is ending. */
  _closedError(): HtxError {
    return this.error ?? new HtxError("CLOSED", "Cannot use session: it has ended");
  }

  /** @internal */
  _provisionalId(stream: SessionStream): number {
    let id = this.#nextLocalId;
    for (const other of this.#unopened.values()) if (other._age < stream._age) id += 2;
    return id;
  }

  /** @internal Puts a stream into the round, if it has something to send. */
  _wake(stream: SessionStream): void {
    if (stream._ready || stream._finished || stream._sendEnded) return;
    if (stream._send.size > 0 ? stream._sendWindow <= 0 : !stream._endQueued) return;
    if (stream._id === 0) {
      // Ids are given in the order in which streams first speak, and the round keeps that order.
      this.#unopened.delete(stream._age);
      stream._id = this.#nextLocalId;
      this.#nextLocalId += 2;
      this.#streams.set(stream._id, stream);
    }
    stream._ready = true;
    this.#ready.push(stream);
    this.#due();
  }

  /** @internal The application took `length` received bytes. */
  _consume(stream: SessionStream, length: number): void {
    if (stream._finished) return this._retireIfDone(stream);
    stream._consumed += length;
    if (stream._creditDue || stream._receiveEnded || stream._consumed * 2 < stream._target) return;
    stream._creditDue = true;
    this.#credits.push(stream);
    this.#due();
  }

  /** @internal */
  _stopSending(stream: SessionStream): void {
    if (stream._finished || stream._stopSending || stream._receiveEnded) return;
    stream._stopSending = true;
    if (stream._sendEnded) this.#stopNow(stream);
  }

  #stopNow(stream: SessionStream): void {
    this.#queueReset(stream._id, CloseCode.NO_ERROR, "");
    stream._receive.clear();
    stream._receiveEnded = true;
    this.#finish(stream, undefined);
    stream._emitReadable();
  }

  /** @internal */
  _reset(stream: SessionStream, closeCode: number, reason: string): void {
    if (stream._finished) {
      stream._receive.clear();
      return this._retireIfDone(stream);
    }
    // A stream whose opening frame is not out yet is unknown to the peer: its id is skipped.
    if (stream._opened && !this.closing) this.#queueReset(stream._id, closeCode, shortReason(reason));
    else this.#due(); // nothing to send, but the session may be idle from here on, which has its timer
    const error = new HtxError(
      closeCodeName(closeCode),
      `Stream was reset${reason === "" ? "" : `: ${reason}`}`,
      {
        streamId: stream.id,
        closeCode,
      },
    );
    this.#drop(stream, error);
  }

  /** @internal */
  _retireIfDone(stream: SessionStream): void {
    if (stream._retired || !stream._finished || stream._held) return;
    if (stream._receive.size > 0 && !stream._released) return;
    stream._retired = true;
    if (stream._id === CONTROL_STREAM_ID) return;
    if (!stream._local) this.#peerCount--;
  }

  #refuse(stream: SessionStream, code: CloseCodeName, why: string): void {
    this.#queueReset(stream._id, CloseCode[code], "");
    this.#drop(stream, new HtxError(code, `Stream was reset: ${why}`, { streamId: stream._id }));
  }

  /** Ends both directions of a stream with an error, discarding what it holds. */
  #drop(stream: SessionStream, error: HtxError): void {
    stream.error = error;
    stream._dropped = true;
    stream._send.clear();
    stream._receive.clear();
    stream._sendEnded = true;
    this.#finish(stream, error);
    stream._emitReadable();
    stream._emitSent();
  }

  #finish(stream: SessionStream, error: HtxError | undefined): void {
    if (stream._finished) return;
    stream._finished = true;
    if (stream._id === 0) this.#unopened.delete(stream._age);
    else this.#streams.delete(stream._id);
    this.#windows.ended(stream);
    if (stream._id === CONTROL_STREAM_ID) {
      this.#control = "done";
    } else {
      this.stats.streams--;
      if (stream._local) this.#localCount--;
    }
    this._retireIfDone(stream);
    if (this.stats.streams === 0) this.#timers.idleSince = this.#now();
    stream._emitFinished(error);
    if (stream._local && stream._id !== CONTROL_STREAM_ID && !this.closing) this.#events.slot?.();
    this.#closeIfDrained();
  }

  #closeIfDrained(): void {
    if (!this.#draining || this.closing) return;
    const control = this.#control === "open" ? 1 : 0;
    if (this.#unopened.size === 0 && this.#streams.size === control) this.close();
  }

  #queueReset(streamId: number, closeCode: number, reason: string): void {
    const reset = { closeCode, streamId, reason };
    if (!this.isLocal(streamId)) {
      this.#resets.push(reset);
    } else if (this.#heldResets.length === 0 && this.#now() >= this.#resetPace.next(this.#ownResets)) {
      this.#resets.push(reset);
      this.#ownResets++;
    } else {
      this.#heldResets.push(reset);
      this.#localCount++; // its place stays taken: to the peer it is open
    }
    this.#due();
  }

  /** Puts those resets among the due ones that the peer puts up with by now. */
  #releaseResets(now: number): void {
    while (this.#heldResets.length > 0 && now >= this.#resetPace.next(this.#ownResets)) {
      this.#resets.push(this.#heldResets.shift()!);
      this.#ownResets++;
      this.#localCount--;
      this.#due();
      this.#events.slot?.();
    }
  }

  #queuePing(kind: number, data: Uint8Array): void {
    const plaintext = new Uint8Array(1 + data.length);
    plaintext[0] = kind;
    plaintext.set(data, 1);
    this.#pings.push(plaintext);
    this.#due();
  }

  #queueClose(closeCode: number, reason: string): void {
    if (this.#closeState !== "none") return;
    this.#close = { closeCode, streamId: 0, reason };
    this.#closeState = "queued";
    this.#due();
  }

  #terminate(error: HtxError): void {
    this.#conclude(
      { code: closeCodeName(error.closeCode), closeCode: error.closeCode, reason: "", remote: error.remote },
      error,
      () => error,
    );
  }

  /** The one way into the end: streams are told, then the owner. With `flush`, queued data that fits its window still goes out. */
  #conclude(info: CloseInfo, error: HtxError | undefined, streamError: () => HtxError, flush = false): void {
    if (this.closing) return;
    this.closeInfo = info;
    this.error = error;
    this.#timers.stop();
    this.#probe = undefined;
    this.#credits.length = this.#pings.length = this.#heldResets.length = 0;
    this.#pongs = 0;
    this.#padding = -1;
    if (!flush) this.#ready.length = this.#resets.length = 0;
    let why: HtxError | undefined; // most sessions end with no stream open, and an error costs as much as a frame
    const open = this.#streams.values().sort((a, b) => a._id - b._id);
    const unopened = this.#unopened.values().sort((a, b) => a._age - b._age);
    for (const stream of [...open, ...unopened]) {
      if (stream._finished) continue; // by a listener that was told of another one
      stream._flushing = flush && stream._ready;
      const fits = stream._endQueued && stream._send.size <= stream._sendWindow;
      if (stream._flushing && fits && stream._receiveEnded) {
        this.#finish(stream, undefined); // its end is on its way, nothing is missing
        continue;
      }
      why ??= streamError();
      stream.error = new HtxError(why.code, why.message, {
        // Named where the peer has never heard of it, which makes a refusal one of this stream.
        // An id that was not given yet is the next: those before it are done with.
        ...(!stream._opened && { streamId: stream._id || this.#nextLocalId }),
        remote: why.remote,
        closeCode: why.closeCode,
        cause: why.cause,
      });
      stream._dropped = true;
      if (!stream._flushing) stream._send.clear();
      stream._receive.clear();
      this.#finish(stream, stream.error);
      stream._emitReadable();
      stream._emitSent();
    }
    this.#events.closing?.(info, error);
  }

  // ------------------------------------------------------------------ bytes to send

  /** The duplex is gone: what was still to go out behind a close is not going to. */
  #stopFlushing(): void {
    this.#resets.length = 0;
    for (const stream of this.#ready.splice(0)) {
      stream._ready = stream._flushing = false;
      if (stream._send.size > 0) stream.error ??= this._closedError(); // for who waits for a write
      stream._send.clear();
      stream._emitSent();
    }
  }

  /** Overwrites the keys of both directions; the session must not be used afterwards. */
  wipe(): void {
    this.#sealer.wipe();
    this.#receiveKeys.wipe();
  }

  /** Whether {@linkcode HtxSession.fill} has something to write. */
  get outputDue(): boolean {
    return this.#closeState !== "sent" && (
      this.#closeState === "queued" || this.#ready.length > 0 || this.#credits.length > 0 ||
      this.#resets.length > 0 || this.#pings.length > 0 || this.#padding >= 0 || this.#sealer.updateDue
    );
  }

  /** Whether credit is due: a peer may be waiting for it. */
  get creditDue(): boolean {
    return this.#credits.length > 0;
  }

  /** About how many bytes {@linkcode HtxSession.fill} would write, never too few; counts no further than `enough`. */
  outputSize(enough: number): number {
    let size = MIN_FILL_LENGTH + 64 * (this.#credits.length + this.#pings.length) +
      this.#resets.length * MIN_FILL_LENGTH;
    if (this.#padding >= 0) size += this.#padding + 64;
    for (const stream of this.#ready) {
      size += 64 + Math.max(0, Math.min(stream._send.size, stream._sendWindow, MAX_PLAINTEXT_LENGTH));
      if (size >= enough) return size;
    }
    return size;
  }

  /**
   * Seals what is due into `into`, at least {@linkcode MIN_FILL_LENGTH} bytes long, and returns how many bytes
   * are to be sent, in one write and in order. Control frames go first; streams take turns, one frame each, so
   * that none delays another by more than a frame. Call again while {@linkcode HtxSession.outputDue}. `now` is the time
   * on the session's clock.
   */
  fill(into: Uint8Array, now: number = this.#now()): number {
    if (into.length < MIN_FILL_LENGTH) {
      throw new RangeError(`Cannot fill: fewer than ${MIN_FILL_LENGTH} bytes of room`);
    }
    if (this.#closeState === "sent") return 0;
    let at = this.#sealUpdate(into, now);
    if (!this.#sealer.aged(now)) at = this.#sealDue(into, at, now);
    if (at > 0) {
      this.stats.batches++;
      this.stats.bytesSent += at;
    }
    // Told only now: what a listener writes must not run into a frame that is being sealed.
    for (; this.#updates > 0; this.#updates--) this.#events.keyUpdate?.(true);
    return at;
  }

  /** The KEY_UPDATE that was asked for, or that the keys' age calls for. */
  #sealUpdate(into: Uint8Array, now: number): number {
    const sealer = this.#sealer;
    let at = 0;
    // HTX 1.1 §3 wants 16 frames for each KEY_UPDATE, which an hour of a quiet session does not have: padding makes them
    // up. Where a batch has no room for all of it, nothing else goes out in it, under keys past their time.
    while (sealer.aged(now) && !sealer.mayRush && into.length - at >= MIN_FILL_LENGTH) {
      at = sealer.seal(FrameType.PING, undefined, FILLER, into, at, now);
    }
    if (sealer.mayRush && (sealer.aged(now) || sealer.updateAsked)) at = sealer.update(into, at, now);
    return at;
  }

  /** Everything else that is due, behind what is in `into` already. */
  #sealDue(into: Uint8Array, start: number, now: number): number {
    let at = start;
    const room = () => into.length - at >= MIN_FILL_LENGTH;
    let reset: CloseFrame | undefined;
    while (room() && (reset = this.#resets.shift()) !== undefined) {
      if (this.isLocal(reset.streamId)) {
        this.#ownResets--;
        this.#resetPace.sent(now);
      }
      at = this.#sealClose(reset, into, at, now);
    }
    let credited: SessionStream | undefined;
    while (room() && (credited = this.#credits.shift()) !== undefined) {
      at = this.#sealCredit(credited, into, at, now);
    }
    let ping: Uint8Array | undefined;
    while (room() && (ping = this.#pings.shift()) !== undefined) {
      if (ping[0] === PING_ANSWER) this.#pongs--;
      at = this.#sealer.seal(FrameType.PING, undefined, ping, into, at, now);
    }
    // Padding waits for a batch with room for it; a buffer that never has any gets as much as it can take.
    const spare = into.length - at - MIN_FILL_LENGTH;
    if (this.#padding >= 0 && (spare >= this.#padding || at === 0)) {
      const padding = new Uint8Array(1 + Math.min(spare, this.#padding, this.#sealer.frameLimit - 1));
      padding[0] = PING_PADDING;
      this.#padding = -1;
      at = this.#sealer.seal(FrameType.PING, undefined, padding, into, at, now);
    }
    at = this.#sealRound(into, at, now);
    if (this.#closeState === "queued" && this.#ready.length === 0 && this.#resets.length === 0 && room()) {
      at = this.#sealClose(this.#close!, into, at, now);
      this.#closeState = "sent";
      this.#timers.closeSentAt = now;
      this.#sealer.wipe();
    }
    return at;
  }

  /** One frame a turn, until the batch is full or nothing is left. */
  #sealRound(into: Uint8Array, start: number, now: number): number {
    const ready = this.#ready;
    const tails: SessionStream[] = [];
    let at = start;
    let data = false;
    while (ready.length > 0 && at < FULL_BATCH) {
      const stream = ready[0]!;
      if (stream._finished && !stream._flushing) {
        ready.shift();
        stream._ready = false;
        continue;
      }
      const due = Math.min(stream._send.size, stream._sendWindow, this.#sealer.frameLimit);
      const room = into.length - at - FRAME_OVERHEAD;
      // A frame is cut short by a full buffer only where the buffer is its own: else it waits for the next batch.
      if (room < due && at > 0 || room <= 0) break;
      ready.shift();
      stream._ready = false;
      at = this.#sealData(stream, stream._send.worthTaking(Math.min(due, room)), into, at, now);
      // The odd bytes that a full frame leaves of a write wait for the next batch: more is likely to come behind them.
      // It is the last of the round, unless who was told of the bytes put others behind it, whose turn comes before.
      const little = stream._ready && !stream._endQueued && stream._send.size < TAIL;
      if (little && ready.at(-1) === stream) tails.push(ready.pop()!);
      data = true;
    }
    ready.push(...tails);
    if (data) this.#timers.dataSent(now);
    return at;
  }

  #sealData(stream: SessionStream, length: number, into: Uint8Array, start: number, now: number): number {
    const last = stream._endQueued && length === stream._send.size;
    const end = last && (this.limits.streamEnd || length === 0);
    const plaintext = stream._send.take(length, this.#gather);
    if (plaintext === undefined) {
      this.#lose(stream);
      return start;
    }
    stream._opened = true;
    const type = end && this.limits.streamEnd ? FrameType.STREAM_END : FrameType.STREAM;
    const at = this.#sealer.seal(type, stream._id, plaintext, into, start, now);
    stream._sendWindow -= length;
    // What waits by reference is copied as soon as there is room: its owner goes on, and the few bytes that a full
    // frame leaves of a large write wait for the next frame instead of taking one of their own.
    stream._releasedBytes = stream._send.own(this.limits.sendBuffer)
      ? stream._queuedBytes
      : stream._queuedBytes - stream._send.size;
    this.stats.dataSent += length;
    if (end) {
      stream._sendEnded = true;
      if (stream._receiveEnded) this.#finish(stream, undefined);
      else if (stream._stopSending) this.#stopNow(stream);
    } else if (stream._send.size > 0 ? stream._sendWindow > 0 : stream._endQueued) {
      stream._ready = true;
      this.#ready.push(stream);
    }
    if (stream._flushing && !stream._ready) stream._send.clear();
    stream._emitSent();
    return at;
  }

  /** The memory of a write was detached before it was sealed: the stream cannot go on, the session can. */
  #lose(stream: SessionStream): void {
    const why = "the buffer of a write was detached before it was sent";
    if (!stream._finished) return this._reset(stream, CloseCode.INTERNAL_ERROR, why);
    stream._flushing = false; // behind a close()
    stream._send.clear();
    stream.error ??= new HtxError("INTERNAL_ERROR", `Stream was cut short: ${why}`, { streamId: stream.id });
    stream._emitSent();
  }

  #sealCredit(stream: SessionStream, into: Uint8Array, at: number, now: number): number {
    stream._creditDue = false;
    if (stream._finished || stream._receiveEnded) return at;
    const increment = this.#windows.credit(stream, now, () => this.#measureRoundTrip(now));
    if (increment === 0) return at;
    stream._receiveWindow += increment;
    this.stats.windowUpdatesSent++;
    return this.#sealer.seal(FrameType.WINDOW_UPDATE, stream._id, encodeVarint(increment), into, at, now);
  }

  #measureRoundTrip(now: number): void {
    if (this.#probe !== undefined && now - this.#probe.at < PROBE_PATIENCE_MS) return;
    const data = new Uint8Array(9); // one byte more than pings of applications are given, so that none is taken for it
    new DataView(data.buffer).setUint32(0, ++this.#probeCount);
    this.#probe = { data, at: now };
    this.#queuePing(PING_ASK, data);
  }

  #sealClose(close: CloseFrame, into: Uint8Array, at: number, now: number): number {
    return this.#sealer.seal(FrameType.CLOSE, undefined, encodeClose(close), into, at, now);
  }

  #due(): void {
    this.#events.output?.();
  }

  // ------------------------------------------------------------------ time

  /** When {@linkcode HtxSession.tick} should be called next, on the session's clock; `undefined` where never. */
  get nextTimeout(): number | undefined {
    if (this.closing) return this.done ? undefined : this.#timers.closeEnd;
    const { next } = this.#timers;
    if (this.#heldResets.length === 0) return next;
    const release = this.#resetPace.next(this.#ownResets);
    return release === Infinity ? next : Math.min(next ?? Infinity, release);
  }

  /** Settles what is due by now: timeouts, keepalives, padding. */
  tick(): void {
    const now = this.#now();
    const timers = this.#timers;
    if (this.closing) {
      if (now >= (timers.closeEnd ?? Infinity)) this.#ended = true;
      return;
    }
    const failure = timers.failure(now);
    if (failure !== undefined) return this.fail(failure);
    if (timers.idle(now)) return this.close("GOING_AWAY", "idle");
    const keepalive = timers.takeKeepalive(now);
    if (keepalive !== undefined) this.#queuePing(PING_ASK, keepalive);
    const padding = timers.takePadding(now);
    if (padding !== undefined) {
      this.#padding = padding;
      this.#due();
    }
    this.#releaseResets(now);
  }
}

/** Where small pieces are gathered before they are sealed; in use only inside one call of `fill`, so one serves all. */
let scratch: Uint8Array | undefined;

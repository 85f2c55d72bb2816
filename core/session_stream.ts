/**
 * {@linkcode SessionStream}: the state of one stream inside a session engine.
 *
 * @module
 */

import { codeNumber } from "./close.ts";
import type { Bytes } from "./crypto.ts";
import { type CloseCodeName, HtxError } from "./errors.ts";
import { INITIAL_WINDOW } from "./limits.ts";
import { ReceiveQueue, REFERENCE_FROM, SendQueue } from "./queues.ts";
import type { HtxSession } from "./session.ts";

/** The stream that the server opens for transition control maps (HTX 1.1 §8). */
export const CONTROL_STREAM_ID = 2;

/**
 * One stream of a session, without promises: `HtxStream` adds those. The `on…` methods are for subclasses.
 */
export class SessionStream {
  /** Why the stream ended, where it did not end well. */
  error: HtxError | undefined;
  /** @internal */ readonly session: HtxSession;
  /** @internal */ _id: number;
  /** @internal */ readonly _local: boolean;
  /** @internal Whether its opening frame is on the wire. */ _opened = false;
  /** @internal */ readonly _send: SendQueue = new SendQueue();
  /** @internal */ readonly _receive: ReceiveQueue = new ReceiveQueue();
  /** @internal Credit left to send. */ _sendWindow = INITIAL_WINDOW;
  /** @internal Credit the peer has left. */ _receiveWindow = INITIAL_WINDOW;
  /** @internal Its place among the streams that this side began. */ _age = 0;
  /** @internal Window that updates aim at. */ _target = INITIAL_WINDOW;
  /** @internal Read by the application, credit not yet returned. */ _consumed = 0;
  /** @internal */ _creditedAt = 0;
  /** @internal */ _creditDue = false;
  /** @internal The application ended its direction. */ _endQueued = false;
  /** @internal Still sealing what was queued when the session was closed. */ _flushing = false;
  /** @internal Our end is sealed. */ _sendEnded = false;
  /** @internal */ _receiveEnded = false;
  /** @internal NO_ERROR is to follow our end. */ _stopSending = false;
  /** @internal In the round of streams with something to send. */ _ready = false;
  /** @internal Reset, or ended both ways. */ _finished = false;
  /** @internal What was unread is gone: reading ends with `error`. */ _dropped = false;
  /** @internal No longer counted. */ _retired = false;
  /** @internal A handler still holds it. */ _held = false;
  /** @internal A handler had it: what it left unread is its own business. */ _released = false;
  /** Bytes received on this stream so far. */
  bytesReceived = 0;
  /** Of stream 2: how many of those came before the latest KEY_UPDATE of the peer's; `undefined` where none has come since it opened. */
  bytesBeforeKeyUpdate: number | undefined;
  /** @internal Bytes handed to `write`, and bytes sealed, since the beginning. */ _queuedBytes = 0;
  /** @internal Of those, how many need their caller's buffer no more: they are sealed or copied. */ _releasedBytes =
    0;

  /** @internal Streams are made by their session. */
  constructor(session: HtxSession, id: number) {
    this.session = session;
    this._id = id;
    this._local = id === 0 || session.isLocal(id);
  }

  /**
   * The stream id. For a stream of this side's that has sent nothing yet it is the one it would get now: ids go
   * out in growing order, so a younger stream that speaks first takes it (HTX 1.1 §4).
   */
  get id(): number {
    return this._id !== 0 ? this._id : this.session._provisionalId(this);
  }

  /** Whether nothing more will come: the peer ended its direction, or the stream was reset. */
  get receiveEnded(): boolean {
    return this._receiveEnded || this._finished;
  }

  /** Whether both directions ended or the stream was reset. */
  get finished(): boolean {
    return this._finished;
  }

  /** Bytes received that wait to be read. */
  get receivedBytes(): number {
    return this._receive.size;
  }

  /** Bytes given to {@linkcode SessionStream.put} since the beginning. */
  get bytesPut(): number {
    return this._queuedBytes;
  }

  /** Takes the next received chunk; `null` at the end, `undefined` where nothing waits yet. Returns credit. */
  take(): Bytes | null | undefined {
    const chunk = this._receive.shift();
    if (chunk !== undefined) {
      this.session._consume(this, chunk.length);
      return chunk;
    }
    return this._receiveEnded && !this._dropped ? null : undefined;
  }

  /** Copies what was received into `into`, as much as fits; `null` at the end, `undefined` where nothing waits yet. Returns credit. */
  takeInto(into: Uint8Array): number | null | undefined {
    const length = this._receive.copyInto(into);
    if (length > 0) this.session._consume(this, length);
    if (length > 0 || this._receive.size > 0) return length;
    return this._receiveEnded && !this._dropped ? null : undefined;
  }

  /**
   * Queues data to send. `true`: it was copied, the buffer is the caller's. `false`: it is held by reference and
   * must stay as it is until {@linkcode SessionStream.pendingBytes} falls to what it was before.
   *
   * @throws {TypeError} when `data` is no `Uint8Array`
   * @throws {HtxError} the stream's error, or `CLOSED` when this direction has ended
   */
  put(data: Uint8Array, end = false): boolean {
    // Whatever else has a length, or none, would be sent wrong or not at all.
    if (!(data instanceof Uint8Array)) {
      throw new TypeError("Cannot write to stream: the data is no Uint8Array");
    }
    if (this.error !== undefined) throw this.error;
    if (this._endQueued || this._finished) {
      throw new HtxError("CLOSED", "Cannot write to stream: its sending direction has ended", {
        streamId: this.id,
      });
    }
    if (this.session.closing) throw this.session._closedError();
    if (this._id === CONTROL_STREAM_ID && this.session.role === "client") {
      throw new TypeError("Cannot write to stream 2: only the server sends on it");
    }
    let copied = true;
    if (data.length > 0) {
      copied = data.length < REFERENCE_FROM &&
        this._send.size + data.length <= this.session.limits.sendBuffer;
      if (copied) this._send.appendCopy(data);
      else this._send.append(data);
      this._queuedBytes += data.length;
    }
    if (end) this._endQueued = true;
    this.session.puts++;
    this.session._wake(this);
    return copied;
  }

  /** Bytes given to {@linkcode SessionStream.put} that are not sealed yet. */
  get pendingBytes(): number {
    return this._send.size;
  }

  /** After its own direction ended (or once it will): asks the peer to stop sending (CLOSE with NO_ERROR, HTX 1.1 §4). */
  stopSending(): void {
    this.session._stopSending(this);
  }

  /** Ends both directions at once, discards what is unread, and tells the peer. Idempotent. */
  reset(code: CloseCodeName | number = "CANCELLED", reason = ""): void {
    this.session._reset(this, codeNumber(code), reason);
  }

  /** Keeps the stream counted against the peer's limit until {@linkcode SessionStream.release}, even when it is finished. */
  hold(): void {
    if (!this._retired) this._held = true;
  }

  /** The handler that held the stream has returned. */
  release(): void {
    if (!this._held) return;
    this._held = false;
    this._released = true;
    this.session._retireIfDone(this);
  }

  /** Data, the end or an error can be taken. */
  protected onReadable(): void {}
  /** Queued bytes were sealed. */
  protected onSent(): void {}
  /** Both directions ended, or the stream was reset: `error` is why it did not end well. */
  protected onFinished(_error: HtxError | undefined): void {}

  /** @internal */ _emitReadable(): void {
    this.onReadable();
  }
  /** @internal */ _emitSent(): void {
    this.onSent();
  }
  /** @internal */ _emitFinished(error: HtxError | undefined): void {
    this.onFinished(error);
  }
}

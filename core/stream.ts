/**
 * {@linkcode HtxStream}: a stream of a session with promises and web streams.
 *
 * @module
 */

import { byteStream, type ByteStreamController } from "./_byte_stream.ts";
import { deferred } from "./_deferred.ts";
import type { Bytes } from "./crypto.ts";
import type { HtxError } from "./errors.ts";
import { SessionStream } from "./session_stream.ts";

const EMPTY = /* @__PURE__ */ new Uint8Array(0);
const RESOLVED: Promise<void> = /* @__PURE__ */ Promise.resolve();

interface Waiting {
  readonly at: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Options of a write to a stream. */
export interface StreamWriteOptions {
  /** Ends this direction with the data: both leave in one frame. @default {false} */
  end?: boolean | undefined;
}

/**
 * One bidirectional stream. Its bytes are at hand twice: as web streams, and by `read` / `write`, which spare the
 * hops. Use one or the other, never both.
 *
 * Ending the writing side (`writable.close()`, `closeWrite()`) leaves the reading side open. Cancelling `readable`
 * or aborting `writable` resets the stream: both directions end, and what is unread is gone (HTX 1.1 §4).
 *
 * @example Asking and answering
 * ```ts
 * import { connect, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveStreams((stream) => stream.readable.pipeTo(stream.writable));
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * const stream = await client.createBidirectionalStream();
 * const writer = stream.writable.getWriter();
 * await writer.write(new TextEncoder().encode("hello"));
 * await writer.close();
 * const [answer] = await Array.fromAsync(stream.readable);
 * assertEquals(new TextDecoder().decode(answer), "hello");
 * ```
 */
export class HtxStream extends SessionStream {
  #readable: ReadableStream<Bytes> | undefined;
  #readableController: ByteStreamController | undefined;
  #writable: WritableStream<Uint8Array> | undefined;
  #writableController: WritableStreamDefaultController | undefined;
  /** The read that waits, told of what arrives. */
  #arrived: (() => void) | undefined;
  #waiting: Waiting[] | undefined;
  #closed: PromiseWithResolvers<void> | undefined;
  #abort: AbortController | undefined;

  /**
   * Bytes from the peer, a chunk for each frame; a byte stream, so that a BYOB reader leaves nothing for the garbage
   * collector. Nothing is read ahead of the reader: the window, and with it the peer, waits for it. Cancelling resets
   * the stream with CANCELLED.
   */
  get readable(): ReadableStream<Bytes> {
    return this.#readable ??= byteStream({
      tryRead: () => this.tryRead(),
      tryReadInto: (into) => this.tryReadInto(into),
      arrival: () => this.#read(() => this.receivedBytes > 0 || this.receiveEnded || undefined),
      cancel: () => this.reset("CANCELLED"),
    }, (controller) => {
      this.#readableController = controller;
      if (this._dropped && this.error !== undefined) controller.error(this.error);
    });
  }

  /**
   * Bytes to the peer. Small chunks are copied and gathered into frames while there is room; a large one is done
   * with when it is sealed. Closing ends this direction; aborting resets the stream with CANCELLED.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#writableController = controller;
        if (this.error !== undefined) controller.error(this.error);
      },
      write: (chunk) => this.#send(chunk, false),
      close: () => this.closeWrite(),
      abort: () => this.reset("CANCELLED"),
    }, { highWaterMark: Math.max(1, this.session.limits.sendBuffer), size: (chunk) => chunk?.length ?? 0 });
  }

  /**
   * Settles when the stream is finished in both directions.
   *
   * @throws {HtxError} why it ended otherwise; left alone, that is no unhandled rejection
   */
  get closed(): Promise<void> {
    if (this.#closed === undefined) {
      this.#closed = deferred();
      this.#closed.promise.catch(() => {});
      if (this.finished) this.#settleClosed(this._dropped ? this.error : undefined);
    }
    return this.#closed.promise;
  }

  /**
   * Aborts with the {@linkcode HtxError} when the stream is reset or its session ends before it; with NO_ERROR when the
   * peer, done itself, asks to stop sending (HTX 1.1 §4).
   */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.error !== undefined) this.#abort.abort(this.error);
    }
    return this.#abort.signal;
  }

  /**
   * The next chunk, as it arrived; `null` at the end of the peer's direction. One call at a time.
   *
   * @throws {HtxError} when the stream was reset or the session ended before it
   */
  read(): Promise<Bytes | null> {
    return this.#read(() => this.tryRead());
  }

  /** What `take` gives, now or once it has something. */
  #read<T>(take: () => T | undefined): Promise<T> {
    try {
      const taken = take();
      if (taken !== undefined) return Promise.resolve(taken);
      if (this.#arrived !== undefined) throw new TypeError("Cannot read: a read is under way");
    } catch (error) {
      return Promise.reject(error);
    }
    const { promise, resolve, reject } = deferred<T>();
    this.#arrived = () => {
      try {
        const taken = take();
        if (taken === undefined) return;
        resolve(taken);
      } catch (error) {
        reject(error);
      }
      this.#arrived = undefined;
    };
    return promise;
  }

  /**
   * Reads what has arrived into `into`: the frames that fit whole, or a part of the first. Tells how many bytes that
   * was, `null` at the end of the peer's direction; `into` must stay untouched until then. One call at a time. The
   * memory that the bytes arrived in is used again at once, where {@linkcode HtxStream.read} leaves it to the garbage
   * collector: for much data this is the faster way, with room for a few frames of 64 KiB.
   *
   * @example Counting what comes, in 256 KiB of memory
   * ```ts
   * import type { HtxStream } from "@betanet/htx/core";
   *
   * async function count(stream: HtxStream): Promise<number> {
   *   const buffer = new Uint8Array(262_144);
   *   let total = 0;
   *   for (let length; (length = await stream.readInto(buffer)) !== null;) total += length;
   *   return total;
   * }
   * ```
   *
   * @throws {TypeError} when `into` is empty, or another read is under way
   * @throws {HtxError} when the stream was reset or the session ended before it
   */
  readInto(into: Uint8Array): Promise<number | null> {
    return this.#read(() => this.tryReadInto(into));
  }

  /**
   * {@linkcode HtxStream.readInto} of what has arrived: `null` at the end, `undefined` where nothing waits yet.
   *
   * @throws {TypeError} when `into` is empty
   * @throws {HtxError} when the stream was reset or the session ended before it
   */
  tryReadInto(into: Uint8Array): number | null | undefined {
    if (into.length === 0) throw new TypeError("Cannot read: there is no room to read into");
    const length = this.takeInto(into);
    if (length === undefined && this.error !== undefined) throw this.error;
    return length;
  }

  /**
   * The next chunk, if one waits: `null` at the end, `undefined` where nothing waits yet.
   *
   * @throws {HtxError} when the stream was reset or the session ended before it
   */
  tryRead(): Bytes | null | undefined {
    const chunk = this.take();
    if (chunk === undefined && this.error !== undefined) throw this.error;
    return chunk;
  }

  /**
   * Sends `data`. Settles when there is room for more, which is the back-pressure; then the bytes of `data` are
   * the caller's again.
   *
   * @throws {TypeError} when `data` is no `Uint8Array`
   * @throws {HtxError} when the stream was reset, this direction ended, or the session did
   */
  write(data: Uint8Array, options: StreamWriteOptions = {}): Promise<void> {
    try {
      return this.#send(data, options.end ?? false) ?? RESOLVED;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Ends this direction; the other stays open. Idempotent. */
  closeWrite(): Promise<void> {
    if (this._endQueued && this.error === undefined) return RESOLVED;
    return this.write(EMPTY, { end: true });
  }

  #send(data: Uint8Array, end: boolean): Promise<void> | undefined {
    if (this.put(data, end)) return undefined;
    const { promise, resolve, reject } = deferred<void>();
    (this.#waiting ??= []).push({ at: this._queuedBytes, resolve, reject });
    return promise;
  }

  /** @internal */
  protected override onReadable(): void {
    this.#arrived?.();
  }

  /** @internal */
  protected override onSent(): void {
    const waiting = this.#waiting;
    if (waiting === undefined || waiting.length === 0) return;
    while (waiting.length > 0 && waiting[0]!.at <= this._releasedBytes) waiting.shift()!.resolve();
    if (this.error === undefined || this._flushing && this._ready) return;
    for (const { reject } of waiting.splice(0)) reject(this.error);
  }

  /** @internal */
  protected override onFinished(error: HtxError | undefined): void {
    this.#settleClosed(error);
    if (this.error !== undefined) {
      this.#writableController?.error(this.error);
      this.#abort?.abort(this.error);
    }
    if (error !== undefined) this.#readableController?.error(error);
  }

  #settleClosed(error: HtxError | undefined): void {
    if (this.#closed === undefined) return;
    if (error === undefined) this.#closed.resolve();
    else this.#closed.reject(error);
  }
}

/**
 * {@linkcode HttpBody}: the content of a message that is being received, read from its stream as it is asked for.
 *
 * @module
 */

import { byteStream, isOwn } from "../../core/_byte_stream.ts";
import { deferred } from "../../core/_deferred.ts";
import { ByteCollector, type Bytes, concatAll, HtxError, releaseBytes } from "../../core/mod.ts";
import type { HttpMessageDecoder } from "./decode.ts";
import { type HttpField, oversizedMessage } from "./message.ts";
import type { HttpStream } from "./stream.ts";

const EMPTY = /* @__PURE__ */ new Uint8Array(0);
/** How much of the content that is already here is looked at to find out whether it is all. */
const PEEK_BYTES = 65_536;
/** And in so many pieces: each is a view, which takes more than a hundred bytes, and a chunk may be one byte long. */
const PEEK_PIECES = 64;
/** For this much content memory is made before any of it came, on the word of the peer's `content-length`. */
const TRUSTED_LENGTH = 2 ** 20;

/** How the two sides of an exchange follow the content they receive. */
export interface HttpBodyEvents {
  /** The reader does not want the rest. */
  cancelled(reason: unknown): void;
  /** The message is complete, or `error` came instead. Called once. */
  settled(error: unknown): void;
}

/**
 * Content and trailers of a received message. Nothing is read from the stream before it is asked for here, so a
 * slow reader slows the sender down. Read it in one way: `read`, `bytes` or `stream`.
 */
export class HttpBody {
  readonly #stream: HttpStream;
  readonly #decoder: HttpMessageDecoder;
  readonly #events: HttpBodyEvents;
  /** Content that {@linkcode peek} took early. */
  #early: Uint8Array[] = [];
  #trailers: readonly HttpField[] = [];
  #trailersWanted: PromiseWithResolvers<readonly HttpField[]> | undefined;
  #state: "open" | "complete" | "failed" = "open";
  #error: unknown;
  #complete: Uint8Array | undefined;
  #readable: ReadableStream<Bytes> | undefined;
  /** Whether the memory of what was read may be used again at the next read. */
  #lending = false;
  /** The bytes that the decoder is at; what was read last are views of them. */
  #given: Uint8Array | undefined;
  /** A read that waits. */
  #waiting: PromiseWithResolvers<void> | undefined;

  /** Made by the exchange that received the head. */
  constructor(stream: HttpStream, decoder: HttpMessageDecoder, events: HttpBodyEvents) {
    this.#stream = stream;
    this.#decoder = decoder;
    this.#events = events;
  }

  /**
   * The whole content, when all of it had arrived with the head (which is so for most small messages); `undefined`
   * otherwise. Reading it here instead of through a stream saves the stream. The bytes are a view of received data.
   */
  get complete(): Uint8Array | undefined {
    return this.#complete;
  }

  /** Whether the message has been received to its end. */
  get ended(): boolean {
    return this.#state === "complete";
  }

  /** The value of `content-length`, if the message has one. */
  get contentLength(): number | undefined {
    return this.#decoder.contentLength;
  }

  /** Looks at what is here already, without waiting. */
  peek(): void {
    let total = 0;
    while (total < PEEK_BYTES && this.#early.length < PEEK_PIECES) {
      let data: Uint8Array | null | undefined;
      try {
        data = this.#take();
      } catch {
        return; // Kept, and thrown at the next read.
      }
      if (data === undefined) return;
      if (data === null) {
        this.#complete = this.#early.length === 0
          ? EMPTY
          : this.#early.length === 1
          ? this.#early[0]!
          : concatAll(this.#early);
        return;
      }
      this.#early.push(data);
      total += data.length;
    }
  }

  /**
   * Content that is here already: `null` at the end of the message, `undefined` when there is nothing yet. Its memory is
   * the reader's, but for {@linkcode HttpBody.lend}.
   *
   * @throws {HtxError} when the stream failed or the message turned out malformed
   */
  tryRead(): Uint8Array | null | undefined {
    const early = this.#early.shift();
    if (early !== undefined) return this.#lending ? early : early.slice();
    const data = this.#take();
    return data && !this.#lending ? this.#decoder._detach(data) : data;
  }

  /**
   * The next content as it arrived; `null` at the end of the message. One read at a time. Its memory is the reader's, but
   * for {@linkcode HttpBody.lend}.
   *
   * @throws {HtxError} when the stream failed or the message turned out malformed
   */
  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const data = this.tryRead();
      if (data !== undefined) return data;
      await this.#arrival();
    }
  }

  /**
   * From now on what is read is only lent, until the next read: its memory is then used again at once, where it is
   * otherwise left to the garbage collector. For readers that are done with their bytes when they ask for more.
   */
  lend(): void {
    if (this.#lending) return;
    this.#lending = true;
    this.#given = undefined; // what was read of it before is its reader's
  }

  /** Waits until the stream has given something, or this body was cancelled or aborted; never rejects. */
  #arrival(): Promise<void> {
    const waiting = deferred<void>();
    this.#waiting = waiting;
    this.#stream.read().then((chunk) => {
      this.#push(chunk);
    }, (error) => void this.#fail(error)).then(waiting.resolve);
    return waiting.promise;
  }

  /**
   * Collects the content.
   *
   * @throws {HtxError} as {@linkcode read}, and `LIMIT_EXCEEDED` past `limit` bytes (the rest is then cancelled)
   */
  async bytes(limit = Infinity): Promise<Bytes> {
    const gathered = new ByteCollector(Math.min(this.contentLength ?? 0, limit, TRUSTED_LENGTH));
    this.lend();
    for (;;) {
      const chunk = await this.read();
      if (chunk === null) return gathered.take();
      if (gathered.size + chunk.length > limit) {
        const error = oversizedMessage("content", limit);
        this.cancel(error);
        throw error;
      }
      gathered.push(chunk);
    }
  }

  /**
   * The content as a byte stream that reads only when it is pulled. Always the same one. A BYOB reader leaves nothing for
   * the garbage collector.
   */
  stream(): ReadableStream<Bytes> {
    return this.#readable ??= byteStream({
      tryRead: () => this.#takePiece(),
      tryReadInto: (into) => this.#takeInto(into),
      arrival: () => this.#arrival(),
      cancel: (reason) => this.cancel(reason),
    });
  }

  #takePiece(): Bytes | null | undefined {
    const data = this.#gather();
    if (data === undefined || data === null) return data;
    // A byte stream takes the memory of a chunk, with all that there is on it.
    if (!isOwn(data) || !this.#isWhole(data)) return new Uint8Array(data);
    this.#given = undefined;
    return data;
  }

  #takeInto(into: Uint8Array): number | null | undefined {
    const data = this.#gather();
    if (data === undefined || data === null) return data;
    const length = Math.min(into.length, data.length);
    into.set(data.subarray(0, length));
    if (length < data.length) this.#early.unshift(data.subarray(length));
    else if (this.#isWhole(data)) this.#release();
    return length;
  }

  /**
   * As {@linkcode tryRead}, with the content that lies behind it on the same memory moved up to it: what was given is one
   * piece then, and nothing else looks at its memory any more.
   */
  #gather(): Uint8Array | null | undefined {
    let data = this.#early.shift() ?? this.#take();
    while (data !== undefined && data !== null) {
      let next: Uint8Array | null | undefined;
      try {
        next = this.#early.shift() ?? this.#decoded();
      } catch {
        break; // kept, and thrown at the next read
      }
      if (next === undefined || next === null) break;
      if (next.buffer !== data.buffer || !this.#isOnGiven(data)) {
        this.#early.unshift(next);
        break;
      }
      data = joined(data, next);
    }
    return data;
  }

  /** Whether `data` is of the bytes that were given last, and there is nothing else on their memory. */
  #isOnGiven(data: Uint8Array): boolean {
    const given = this.#given;
    return given !== undefined && data.buffer === given.buffer &&
      given.byteLength === given.buffer.byteLength;
  }

  /** Whether `data` is what is left of those bytes, too. */
  #isWhole(data: Uint8Array): boolean {
    return this.#isOnGiven(data) && this.#early.length === 0;
  }

  #release(): void {
    if (this.#given !== undefined) releaseBytes(this.#given);
    this.#given = undefined;
  }

  /** The trailer section, when the content has been read; rejects when that failed. */
  get trailers(): Promise<readonly HttpField[]> {
    if (this.#trailersWanted === undefined) {
      const wanted = deferred<readonly HttpField[]>();
      this.#trailersWanted = wanted;
      wanted.promise.catch(() => {}); // Whoever asked may have stopped waiting.
      if (this.#state === "complete") wanted.resolve(this.#trailers);
      else if (this.#state === "failed") wanted.reject(this.#error);
    }
    return this.#trailersWanted.promise;
  }

  /** Says that the rest is not wanted. Reads then throw `reason`. */
  cancel(reason?: unknown): void {
    if (this.#state !== "open") {
      this.#early.length = 0;
      return;
    }
    reason ??= new HtxError("CANCELLED", "Cannot read content: it was cancelled", {
      streamId: this.#stream.id,
    });
    this.#settle("failed", reason);
    this.#events.cancelled(reason);
  }

  /** Ends the reading with an error that was found elsewhere. */
  abort(error: unknown): void {
    if (this.#state === "open") this.#settle("failed", error);
  }

  #take(): Uint8Array | null | undefined {
    for (;;) {
      const data = this.#decoded();
      if (data !== undefined) return data;
      // The decoder has nothing left of it: what waits for more it has copied.
      if (this.#lending) this.#release();
      this.#given = undefined;
      let chunk: Uint8Array | null | undefined;
      try {
        chunk = this.#stream.tryRead();
      } catch (error) {
        throw this.#fail(error);
      }
      if (chunk === undefined) return undefined;
      this.#push(chunk);
    }
  }

  /** What the decoder has; `undefined` where it needs more. */
  #decoded(): Uint8Array | null | undefined {
    if (this.#state === "complete") return null;
    if (this.#state === "failed") throw this.#error;
    try {
      for (let event; (event = this.#decoder.next()) !== undefined;) {
        if (event.type === "data") return event.data;
        if (event.type === "trailers") this.#trailers = event.fields;
        if (event.type === "end") {
          this.#drainTail();
          this.#settle("complete", undefined);
          return null;
        }
      }
      return undefined;
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #push(chunk: Uint8Array | null): void {
    if (chunk === null) return this.#decoder.end();
    this.#given = chunk;
    this.#decoder.push(chunk);
  }

  /** What follows the message can only be padding and the end: it is watched, but nobody waits for it. */
  #drainTail(): void {
    const stream = this.#stream;
    const decoder = this.#decoder;
    const feed = (chunk: Uint8Array | null): boolean => {
      if (chunk === null) return true;
      decoder.push(chunk);
      decoder.next();
      return false;
    };
    // The end mostly came with the last bytes.
    for (;;) {
      const chunk = stream.tryRead();
      if (chunk === undefined) break;
      if (feed(chunk)) return;
    }
    const rest = async () => {
      try {
        while (!feed(await stream.read()));
      } catch (error) {
        if (decoder.error === error) stream.reset("PROTOCOL_ERROR", "malformed HTTP message");
      }
    };
    rest();
  }

  #fail(error: unknown): unknown {
    if (this.#state !== "open") return this.#error ?? error;
    // HTX 1.1 §5: malformation found later errors the body, aborts the signal and resets the stream.
    if (this.#decoder.error === error) this.#stream.reset("PROTOCOL_ERROR", "malformed HTTP message");
    this.#settle("failed", error);
    return error;
  }

  #settle(state: "complete" | "failed", error: unknown): void {
    this.#state = state;
    this.#error = error;
    if (state === "failed") {
      this.#early.length = 0;
      this.#waiting?.resolve();
    }
    if (state === "complete") this.#trailersWanted?.resolve(this.#trailers);
    else this.#trailersWanted?.reject(error);
    this.#events.settled(error);
  }
}

/** Two pieces of the same memory, of which the shorter was moved up to the longer. */
function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const { buffer, byteOffset, length } = first;
  const whole = length + second.length;
  if (length > second.length) {
    const out = new Uint8Array(buffer, byteOffset, whole);
    out.set(second, length);
    return out;
  }
  const out = new Uint8Array(buffer, second.byteOffset - length, whole);
  out.set(first);
  return out;
}

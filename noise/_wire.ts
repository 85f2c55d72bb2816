/**
 * What the handshake needs of a byte stream: framed messages under a time limit, and ways to end.
 *
 * @module
 */

import { within } from "../core/_deferred.ts";
import type { ByteIo, Bytes } from "../core/mod.ts";

/** Length of the `uint16 length` before each message. */
const PREFIX_LENGTH = 2;
/** How long a FIN may take before the duplex is closed all the same. */
const FIN_GRACE_MS = 1_000;

/** Buffers of finished readers, to be used again: what they hold went over the wire, none of it is secret. */
const spare: Bytes[] = [];
/** Size of every reader's buffer: messages 1 and 3 of the hybrid form and a first burst of frames behind them. */
const BUFFER_LENGTH = 4096;
const MAX_SPARE = 64;

/** A time limit and a signal in one: what {@linkcode Watch.race} waits for ends with either. */
export class Watch {
  /** Rejects when the time is over or the signal aborts; never an unhandled rejection. */
  readonly stopped: Promise<never>;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #reason: { why: unknown } | undefined;

  constructor(timeoutMs: number, signal: AbortSignal | undefined) {
    let reject: (why: unknown) => void;
    this.stopped = new Promise((_, no) => reject = no);
    this.stopped.catch(() => {});
    const stop = (why: unknown) => {
      this.#reason ??= { why };
      reject(why);
    };
    this.#timer = setTimeout(
      () => stop(new Error(`the handshake took longer than ${timeoutMs} ms`)),
      timeoutMs,
    );
    this.#signal = signal;
    this.#onAbort = () => stop(signal?.reason);
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Settles as `work` does, or rejects when the watch stops first; `work` may then settle unseen. */
  race<T>(work: Promise<T>): Promise<T> {
    return Promise.race([this.stopped, work]);
  }

  /** Throws when the watch has stopped. */
  check(): void {
    if (this.#reason !== undefined) throw this.#reason.why;
  }

  /** Lets go of timer and signal. */
  end(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}

/** A message without its framing: a view into the reader's buffer. */
export interface FramedMessage {
  /** The bytes of the message. */
  readonly message: Bytes;
}

/** A read whose result nobody has taken yet. */
export interface UnsettledRead {
  /** How many bytes it brings; `null` at the end. */
  readonly result: Promise<number | null>;
  /** Where it puts them. */
  readonly into: Bytes;
}

/** Takes framed messages of known lengths from a byte stream, and keeps all that it read. */
export class FrameReader {
  readonly #io: ByteIo;
  readonly #watch: Watch;
  readonly #buffer: Bytes;
  /** Bytes read, and bytes of them that were taken as messages. */
  #filled = 0;
  #taken = 0;
  #ended = false;
  #unsettled: UnsettledRead | undefined;

  constructor(io: ByteIo, watch: Watch) {
    this.#io = io;
    this.#watch = watch;
    this.#buffer = spare.pop() ?? new Uint8Array(BUFFER_LENGTH);
  }

  /** Gives the buffer back. No method may be called, and no message looked at, afterwards. */
  release(): void {
    // A read that was given up may still write into it.
    if (this.#unsettled === undefined && spare.length < MAX_SPARE) spare.push(this.#buffer);
  }

  /** The next message. A length that is not among `lengths` fails as soon as it is there. */
  async receive(lengths: readonly number[]): Promise<FramedMessage> {
    const start = this.#taken + PREFIX_LENGTH;
    await this.#fill(start);
    const length = this.#buffer[start - 2]! << 8 | this.#buffer[start - 1]!;
    if (!lengths.includes(length)) throw new Error(`a message of ${length} bytes is none of ${lengths}`);
    await this.#fill(start + length);
    this.#taken = start + length;
    return { message: this.#buffer.subarray(start, this.#taken) };
  }

  /** A copy of what was read behind the last message. */
  rest(): Bytes {
    return this.#buffer.slice(this.#taken, this.#filled);
  }

  /** A copy of everything that was read. */
  all(): Bytes {
    return this.#buffer.slice(0, this.#filled);
  }

  /** Whether the peer has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /** A read that was given up while it was under way. */
  get unsettled(): UnsettledRead | undefined {
    return this.#unsettled;
  }

  /** Reads up to `limit` more bytes until the peer ends, and forgets them. */
  async discard(limit: number): Promise<void> {
    for (let read = 0; read < limit && !this.#ended;) {
      read += await this.#read(this.#buffer.subarray(0, Math.min(this.#buffer.length, limit - read))) ?? 0;
    }
  }

  async #fill(until: number): Promise<void> {
    while (this.#filled < until) {
      const length = await this.#read(this.#buffer.subarray(this.#filled));
      if (length === null) throw new Error("the peer ended");
      this.#filled += length;
    }
  }

  async #read(into: Bytes): Promise<number | null> {
    if (this.#ended) return null;
    this.#watch.check();
    const result = this.#io.read(into);
    this.#unsettled = { result, into };
    const length = await this.#watch.race(result);
    this.#unsettled = undefined;
    if (length === null) this.#ended = true;
    return length;
  }
}

/** A duplex in other hands, whose first bytes may come from a read that its former owner had under way. */
export class HandedOver implements ByteIo {
  readonly #io: ByteIo;
  #unsettled: UnsettledRead | undefined;
  #left: Uint8Array | undefined;

  constructor(io: ByteIo, unsettled: UnsettledRead | undefined) {
    this.#io = io;
    this.#unsettled = unsettled;
  }

  async read(into: Uint8Array): Promise<number | null> {
    if (this.#unsettled !== undefined) {
      const { result, into: place } = this.#unsettled;
      const length = await result;
      this.#unsettled = undefined;
      if (length === null) return null;
      this.#left = place.subarray(0, length);
    }
    if (this.#left === undefined) return await this.#io.read(into);
    const length = Math.min(into.length, this.#left.length);
    into.set(this.#left.subarray(0, length));
    this.#left = length < this.#left.length ? this.#left.subarray(length) : undefined;
    return length;
  }

  write(data: Uint8Array): Promise<void> {
    return this.#io.write(data);
  }

  closeWrite(): Promise<void> {
    return this.#io.closeWrite();
  }

  close(): void {
    this.#io.close();
  }
}

/** Ends with a FIN where the duplex still can, then for good. Never throws. */
export async function endQuietly(io: ByteIo): Promise<void> {
  try {
    await within(io.closeWrite(), FIN_GRACE_MS);
  } catch {
    // it was broken already
  } finally {
    io.close();
  }
}

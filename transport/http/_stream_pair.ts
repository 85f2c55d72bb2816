/**
 * Two {@linkcode HttpStream}s facing each other in memory, with a window, for tests: what HTTP does on a stream can
 * be looked at (writes, bytes, resets) without an engine below.
 *
 * @module
 */

import { type CloseCodeName, HtxError } from "../../core/mod.ts";
import type { HttpStream } from "./stream.ts";

/** A stream of a pair, and what happened to it. */
export class PairStream implements HttpStream {
  readonly id = 1;
  peer!: PairStream;
  /** The most bytes that wait on the peer's side before writes wait. */
  readonly window: number;
  /** The most bytes that one read gives. */
  readonly readSize: number;
  /** Sizes of the writes made here, and whether each ended the direction. */
  readonly writes: { length: number; end: boolean }[] = [];
  /** The code of the reset made here. */
  resetCode: CloseCodeName | number | undefined;
  /** Whether the peer was asked to stop. */
  stopped = false;
  /** The most bytes that ever waited here. */
  maxQueued = 0;
  /** Bytes waiting to be read here. */
  queued = 0;

  #queue: Uint8Array[] = [];
  #ended = false;
  #endRead = false;
  #writeEnded = false;
  #error: HtxError | undefined;
  #stoppedByPeer = false;
  #wakeReader: (() => void) | undefined;
  #roomWaiters: (() => void)[] = [];
  readonly #abort = new AbortController();

  constructor(window: number, readSize: number) {
    this.window = window;
    this.readSize = readSize;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Whether both directions have ended well. */
  get finished(): boolean {
    return this.#writeEnded && this.#endRead;
  }

  tryRead(): Uint8Array | null | undefined {
    const chunk = this.#queue[0];
    if (chunk !== undefined) {
      const part = chunk.subarray(0, this.readSize);
      if (part.length === chunk.length) this.#queue.shift();
      else this.#queue[0] = chunk.subarray(part.length);
      this.queued -= part.length;
      for (const wake of this.peer.#roomWaiters.splice(0)) wake();
      return part;
    }
    if (this.#error !== undefined) throw this.#error;
    if (this.#ended) {
      this.#endRead = true;
      return null;
    }
    return undefined;
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.tryRead();
      if (chunk !== undefined) return chunk;
      if (this.#wakeReader !== undefined) throw new TypeError("a read is under way");
      await new Promise<void>((resolve) => this.#wakeReader = resolve);
      this.#wakeReader = undefined;
    }
  }

  async write(data: Uint8Array, options: { end?: boolean } = {}): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    if (this.#stoppedByPeer) throw new HtxError("NO_ERROR", "the peer asked for no more", { remote: true });
    if (this.#writeEnded) throw new TypeError("this direction has ended");
    this.writes.push({ length: data.length, end: options.end ?? false });
    this.#writeEnded = options.end ?? false;
    const { peer } = this;
    if (data.length > 0) {
      peer.#queue.push(new Uint8Array(data));
      peer.queued += data.length;
      peer.maxQueued = Math.max(peer.maxQueued, peer.queued);
    }
    if (options.end) peer.#ended = true;
    peer.#wake();
    while (peer.queued > this.window && this.#error === undefined && !this.#stoppedByPeer) {
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
    if (this.#error !== undefined) throw this.#error;
  }

  closeWrite(): Promise<void> {
    return this.#writeEnded ? Promise.resolve() : this.write(new Uint8Array(0), { end: true });
  }

  stopSending(): void {
    if (!this.#writeEnded) throw new TypeError("stopSending before the end of this direction");
    if (this.#ended) return;
    this.stopped = true;
    this.peer.#stoppedByPeer = true;
    for (const wake of this.peer.#roomWaiters.splice(0)) wake();
  }

  reset(code: CloseCodeName | number = "CANCELLED", reason = ""): void {
    if (this.#error !== undefined || this.finished) return;
    this.resetCode = code;
    const name = typeof code === "number" ? "UNKNOWN" : code;
    this.#fail(new HtxError(name, reason, { streamId: this.id }));
    this.peer.#fail(new HtxError(name, reason, { streamId: this.id, remote: true }));
  }

  #fail(error: HtxError): void {
    if (this.#error !== undefined || this.finished) return;
    this.#error = error;
    this.#queue.length = 0;
    this.queued = 0;
    this.#abort.abort(error);
    this.#wake();
    for (const wake of this.#roomWaiters.splice(0)) wake();
    for (const wake of this.peer.#roomWaiters.splice(0)) wake(); // what was discarded leaves room
  }

  #wake(): void {
    this.#wakeReader?.();
  }
}

/** A client's and a server's end. */
export function streamPair(
  options: { window?: number; readSize?: number } = {},
): { client: PairStream; server: PairStream } {
  const { window = 65_536, readSize = Infinity } = options;
  const client = new PairStream(window, readSize);
  const server = new PairStream(window, readSize);
  client.peer = server;
  server.peer = client;
  return { client, server };
}

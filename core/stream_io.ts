/**
 * {@linkcode ByteIo} over web streams, for duplexes that have nothing more direct.
 *
 * @module
 */

import type { ByteIo, Duplex } from "./duplex.ts";

const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** Reads and writes of a {@linkcode Duplex} through its streams, which stay locked until {@linkcode StreamIo.release}. */
export class StreamIo implements ByteIo {
  readonly #duplex: Duplex;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #rest: Uint8Array = EMPTY;
  #closed = false;

  /**
   * Locks both streams of `duplex`.
   *
   * @throws {TypeError} when one of them is locked; the other one is not, then
   */
  constructor(duplex: Duplex) {
    this.#duplex = duplex;
    this.#reader = duplex.readable.getReader();
    try {
      this.#writer = duplex.writable.getWriter();
    } catch (error) {
      this.#reader.releaseLock();
      throw error;
    }
    this.#reader.closed.catch(() => {}); // a pending read tells it
    this.#writer.closed.catch(() => {});
  }

  /** Reads through the readable stream. */
  async read(into: Uint8Array): Promise<number | null> {
    while (this.#rest.length === 0) {
      const { value, done } = await this.#reader.read();
      if (done) return null;
      this.#rest = value;
    }
    const length = Math.min(into.length, this.#rest.length);
    into.set(this.#rest.subarray(0, length));
    this.#rest = this.#rest.subarray(length);
    return length;
  }

  /** Writes a copy through the writable stream. */
  async write(data: Uint8Array): Promise<void> {
    // A stream may hold on to the chunk after the promise settles; the caller's buffer is the caller's again.
    await this.#writer.write(data.slice());
  }

  /** Closes the writable stream. */
  async closeWrite(): Promise<void> {
    if (!this.#closed) await this.#writer.close();
  }

  /** Cancels and aborts both streams. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.cancel().catch(() => {}); // either may have ended before, which is as good
    this.#writer.abort().catch(() => {});
    this.#duplex.close?.();
  }

  /** Unlocks both streams and gives back bytes that were read and not asked for. No read or write may be under way. */
  release(): Uint8Array {
    this.#closed = true;
    this.#reader.releaseLock();
    this.#writer.releaseLock();
    return this.#rest;
  }
}

/** An in-memory {@linkcode ByteIo} pair for the tests of this folder. */

import type { ByteIo } from "../../core/mod.ts";

/** One end, with what tests look at. */
export interface TestIo extends ByteIo {
  /** Everything that was written here, joined. */
  written(): Uint8Array;
  /** How many bytes were read here. */
  readonly bytesRead: number;
  /** Whether this end has sent its FIN. */
  readonly finished: boolean;
  /** Whether `close()` was called here. */
  readonly closed: boolean;
}

class Pipe {
  chunks: Uint8Array[] = [];
  ended = false;
  broken = false;
  wake: (() => void) | undefined;

  push(data: Uint8Array): void {
    if (data.length > 0) this.chunks.push(new Uint8Array(data));
    this.wake?.();
  }
}

class End implements TestIo {
  bytesRead = 0;
  finished = false;
  closed = false;
  readonly #in: Pipe;
  readonly #out: Pipe;
  readonly #log: Uint8Array[] = [];
  readonly #chunk: number;
  readonly #tamper: (data: Uint8Array, index: number) => Uint8Array;

  constructor(incoming: Pipe, outgoing: Pipe, options: MemoryIoOptions) {
    this.#in = incoming;
    this.#out = outgoing;
    this.#chunk = options.chunk ?? Infinity;
    this.#tamper = options.tamper ?? ((data) => data);
  }

  written(): Uint8Array {
    return new Uint8Array(this.#log.flatMap((data) => [...data]));
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#in.chunks.length === 0) {
      if (this.closed) throw new Error("closed");
      if (this.#in.ended) return null;
      await new Promise<void>((resolve) => this.#in.wake = resolve);
      this.#in.wake = undefined;
    }
    const head = this.#in.chunks[0]!;
    const length = Math.min(into.length, head.length, this.#chunk);
    into.set(head.subarray(0, length));
    if (length === head.length) this.#in.chunks.shift();
    else this.#in.chunks[0] = head.subarray(length);
    this.bytesRead += length;
    return length;
  }

  write(data: Uint8Array): Promise<void> {
    if (this.closed || this.finished || this.#out.broken) return Promise.reject(new Error("closed"));
    const sent = this.#tamper(new Uint8Array(data), this.#log.length);
    this.#log.push(new Uint8Array(data));
    this.#out.push(sent);
    return Promise.resolve();
  }

  closeWrite(): Promise<void> {
    this.finished = true;
    this.#out.ended = true;
    this.#out.push(new Uint8Array(0));
    return Promise.resolve();
  }

  close(): void {
    this.closed = true;
    this.#out.ended = true;
    this.#in.broken = true;
    this.#out.wake?.();
    this.#in.wake?.();
  }
}

/** Options of {@linkcode memoryIo}, for one end. */
export interface MemoryIoOptions {
  /** At most so many bytes come with one read. */
  chunk?: number;
  /** What the peer receives in place of the write with that index. */
  tamper?: (data: Uint8Array, index: number) => Uint8Array;
}

/** Two ends of one duplex. */
export function memoryIo(a: MemoryIoOptions = {}, b: MemoryIoOptions = a): [TestIo, TestIo] {
  const up = new Pipe();
  const down = new Pipe();
  return [new End(down, up, a), new End(up, down, b)];
}

/**
 * Readable byte streams: the one place that knows how to answer their readers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";

/** Where the bytes of a {@linkcode byteStream} come from. */
export interface ByteSource {
  /**
   * The next chunk, never empty; the stream takes its memory, with all that there is on it. `null` at the end, `undefined`
   * where nothing is here yet.
   *
   * @throws what the stream is to fail with
   */
  tryRead(): Bytes | null | undefined;
  /** The same into `into`, which is not empty: how many bytes that was. */
  tryReadInto(into: Uint8Array): number | null | undefined;
  /** Settles once either has something to give or to throw; a rejection is what the stream is to fail with. */
  arrival(): Promise<unknown>;
  /** Nobody wants the rest. */
  cancel(reason: unknown): void | Promise<void>;
}

/** The controller of either kind of stream. */
export interface ByteStreamController {
  /** Where a BYOB reader wants the bytes; absent where streams know no such readers. */
  readonly byobRequest?: ReadableStreamBYOBRequest | null;
  enqueue(chunk: Bytes): void;
  close(): void;
  error(reason: unknown): void;
}

/** Whether the bytes stand on memory that is not shared with other threads. */
export function isOwn(bytes: Uint8Array): bytes is Bytes {
  return bytes.buffer instanceof ArrayBuffer;
}

/** Safari has no byte streams before 26. */
const supported = /* @__PURE__ */ (() => {
  try {
    new ReadableStream({ type: "bytes" });
    return true;
  } catch {
    return false;
  }
})();

/** Microtask turns within which a stream has seen that a pull which returned nothing is over: one, and some to spare. */
const PULL_TURNS = 4;

/**
 * A stream that takes BYOB readers, as the bodies of the platform's own `fetch` do, and reads nothing ahead of who reads
 * from it. In runtimes without byte streams it takes the other readers. `started` is given its controller.
 */
export function byteStream(
  source: ByteSource,
  started: (controller: ByteStreamController) => void = () => {},
): ReadableStream<Bytes> {
  const puller = new Puller(source);
  const pull = (controller: ByteStreamController) => puller.pull(controller);
  const cancel = (reason: unknown) => source.cancel(reason);
  return supported
    ? new ReadableStream<Bytes>({ type: "bytes", start: started, pull, cancel })
    : new ReadableStream<Bytes>({ start: started, pull, cancel }, { highWaterMark: 0 });
}

class Puller {
  readonly #source: ByteSource;
  /** Whether a reader is about to be given something. */
  #pulling = false;
  /** Whether that must not go into an open BYOB request; so at first, where all reads until the stream has started show as one. */
  #enqueueing = true;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /**
   * Gives the reader what it asks for, now or later. Later, no promise says so: a default read that comes while the
   * request of a BYOB read is open shows as another pull. Its reader came when the BYOB reader was released, and the
   * answer to that request would go to the stream's queue, past the read that waits; a chunk enqueued goes to it.
   */
  pull(controller: ByteStreamController): void {
    if (this.#pulling) this.#enqueueing = true;
    else if (controller.byobRequest || !this.#give(controller, false)) this.#giveLater(controller);
  }

  async #giveLater(controller: ByteStreamController): Promise<void> {
    this.#pulling = true;
    try {
      // A read that comes before the stream has seen this pull end shows with the next one.
      if (controller.byobRequest) { for (let turn = 0; turn < PULL_TURNS; turn++) await undefined; }
      while (!this.#give(controller, this.#enqueueing)) await this.#source.arrival();
    } catch (error) {
      controller.error(error);
    }
  }

  /** Whether there was something to give: data, or the end. */
  #give(controller: ByteStreamController, enqueueing: boolean): boolean {
    const request = enqueueing ? null : controller.byobRequest;
    if (!request?.view) {
      const chunk = this.#source.tryRead();
      if (chunk === undefined) return false;
      this.#given();
      if (chunk !== null) controller.enqueue(chunk);
      else {
        controller.close();
        controller.byobRequest?.respond(0);
      }
      return true;
    }
    const { buffer, byteOffset, byteLength } = request.view;
    const length = this.#source.tryReadInto(new Uint8Array(buffer, byteOffset, byteLength));
    if (length === undefined) return false;
    this.#given();
    if (length === null) controller.close();
    request.respond(length ?? 0);
    return true;
  }

  /** Said before the stream is: it may pull at once for who reads next. */
  #given(): void {
    this.#pulling = this.#enqueueing = false;
  }
}

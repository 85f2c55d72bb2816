/**
 * Readable byte streams, where the runtime has them.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";

/** What a source of {@linkcode byteStream} needs of its controller. */
export interface ByteStreamController {
  /** Where a BYOB reader wants the bytes; absent where it is a reader of another kind that waits, or none. */
  readonly byobRequest?: ReadableStreamBYOBRequest | null;
  enqueue(chunk: Bytes): void;
  close(): void;
  error(reason: unknown): void;
}

/** Where the bytes of a {@linkcode byteStream} come from. */
export interface ByteStreamSource {
  start?(controller: ByteStreamController): void;
  pull(controller: ByteStreamController): Promise<void> | void;
  cancel(reason: unknown): Promise<void> | void;
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

/**
 * A stream that takes BYOB readers, as the bodies of the platform's own `fetch` do, and pulls only for who reads. In
 * runtimes without byte streams it takes the other readers.
 */
export function byteStream(source: ByteStreamSource): ReadableStream<Bytes> {
  return supported
    ? new ReadableStream<Bytes>({
      type: "bytes",
      start: (controller) => source.start?.(controller),
      pull: (controller) => source.pull(controller),
      cancel: (reason) => source.cancel(reason),
    })
    : new ReadableStream<Bytes>({
      start: (controller) => source.start?.(controller),
      pull: (controller) => source.pull(controller),
      cancel: (reason) => source.cancel(reason),
    }, { highWaterMark: 0 });
}

/** Copies of `data` what fits the view of a BYOB reader, and tells how many bytes that was. */
export function fillRequest(
  request: ReadableStreamBYOBRequest,
  view: ArrayBufferView,
  data: Uint8Array,
): number {
  const { buffer, byteOffset, byteLength } = view;
  const part = data.subarray(0, byteLength);
  new Uint8Array(buffer, byteOffset, byteLength).set(part);
  request.respond(part.length);
  return part.length;
}

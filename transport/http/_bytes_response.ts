/**
 * A `Response` of content that is all here, with a body such as any other that is fetched.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { byteStream } from "../../core/_byte_stream.ts";
import type { Bytes } from "../../core/mod.ts";

/** By the bodies that they stand for, which are always the same. */
const streams: WeakMap<ReadableStream<Bytes>, ReadableStream<Bytes>> = /* @__PURE__ */ new WeakMap();

/**
 * In Deno 2.9 the body of a `Response` made of bytes takes no BYOB readers, where those of its `fetch` do. This one's does,
 * and is still known to the runtime as one of bytes.
 */
const BytesResponse: typeof Response = /* @__PURE__ */ (() => {
  class BytesResponse extends Response {
    override get body(): ReadableStream<Bytes> | null {
      const inner = super.body;
      if (inner === null) return null;
      let stream = streams.get(inner);
      if (stream === undefined) streams.set(inner, stream = asByteStream(inner));
      return stream;
    }
  }
  // As in a response of the runtime's.
  Object.defineProperty(BytesResponse.prototype, "body", { enumerable: true });
  Object.defineProperty(BytesResponse.prototype, "constructor", { value: Response });
  return BytesResponse;
})();

function asByteStream(from: ReadableStream<Bytes>): ReadableStream<Bytes> {
  let reader: ReadableStreamDefaultReader<Bytes> | undefined;
  let held: Bytes | null | undefined;
  return byteStream({
    tryRead: () => {
      const chunk = held;
      if (chunk) held = undefined;
      return chunk;
    },
    tryReadInto: (into) => {
      if (!held) return held;
      const part = held.subarray(0, into.length);
      into.set(part);
      held = part.length < held.length ? held.subarray(part.length) : undefined;
      return part.length;
    },
    arrival: async () => {
      reader ??= from.getReader();
      do held = (await reader.read()).value ?? null; while (held?.length === 0);
    },
    cancel: (reason) => reader === undefined ? from.cancel(reason) : reader.cancel(reason),
  });
}

let Kind: typeof Response | undefined;

/** A response of `content`, whose memory is the response's from now on. */
export function bytesResponse(content: Bytes, init: ResponseInit): Response {
  Kind ??= takesByob(new Response(new Uint8Array(1))) ? Response : BytesResponse;
  return new Kind(content, init);
}

function takesByob(response: Response): boolean {
  try {
    response.body!.getReader({ mode: "byob" });
    return true;
  } catch {
    return false;
  }
}

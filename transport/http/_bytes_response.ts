/**
 * A `Response` of content that is all here, with a body such as any other that is fetched.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { byteStream, fillRequest } from "../../core/_byte_stream.ts";
import type { Bytes } from "../../core/mod.ts";

/** By the bodies that they stand for, which are always the same. */
const streams: WeakMap<ReadableStream<Bytes>, ReadableStream<Bytes>> = /* @__PURE__ */ new WeakMap();

/**
 * In Deno 2.9 the body of a `Response` made of bytes takes no BYOB readers, where those of its `fetch` do. This one's does,
 * and is still known to the runtime as one of bytes.
 */
class BytesResponse extends Response {
  override get body(): ReadableStream<Bytes> | null {
    const inner = super.body;
    if (inner === null) return null;
    let stream = streams.get(inner);
    if (stream === undefined) streams.set(inner, stream = asByteStream(inner));
    return stream;
  }

  // As in a response of the runtime's.
  static {
    Object.defineProperty(this.prototype, "body", { enumerable: true });
    Object.defineProperty(this.prototype, "constructor", { value: Response });
  }
}

function asByteStream(source: ReadableStream<Bytes>): ReadableStream<Bytes> {
  let reader: ReadableStreamDefaultReader<Bytes> | undefined;
  let rest: Bytes | undefined;
  return byteStream({
    pull: async (controller) => {
      reader ??= source.getReader();
      let value = rest ?? (await reader.read()).value;
      while (value?.length === 0) ({ value } = await reader.read());
      const request = controller.byobRequest;
      if (value === undefined) {
        controller.close();
        request?.respond(0);
      } else if (request?.view) {
        const taken = fillRequest(request, request.view, value);
        rest = taken < value.length ? value.subarray(taken) : undefined;
      } else {
        rest = undefined;
        controller.enqueue(value);
      }
    },
    cancel: (reason) => reader === undefined ? source.cancel(reason) : reader.cancel(reason),
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

/**
 * The RFC 9292 codec as TransformStreams: {@linkcode HttpMessageDecoderStream} and
 * {@linkcode HttpMessageEncoderStream}, one message each.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { HtxError } from "../../core/mod.ts";
import { type HttpDecoderOptions, type HttpEvent, HttpMessageDecoder } from "./decode.ts";
import { encodeHttpChunk, encodeHttpEnd, encodeHttpRequest, encodeHttpResponse } from "./encode.ts";
import { opensTunnel } from "./message.ts";

/**
 * Bytes of one message, in chunks of any size, to its events. The end of the bytes is the end of the direction: what
 * is cut off errors the stream with `MALFORMED`. The `data` of events are views of the chunks.
 *
 * Behind a CONNECT, or a 2xx answer to one, is a tunnel and no more of the message: there the events end, and no more
 * bytes are taken. {@linkcode HttpMessageDecoder} tells the first of them.
 *
 * @example
 * ```ts
 * import { encodeHttpResponse, HttpMessageDecoderStream } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeHttpResponse({ status: 204, fields: [] });
 * const events = await Array.fromAsync(ReadableStream.from([bytes]).pipeThrough(new HttpMessageDecoderStream("response")));
 * assertEquals(events.map((event) => event.type), ["response", "end"]);
 * ```
 */
export class HttpMessageDecoderStream extends TransformStream<Uint8Array, HttpEvent> {
  /** Makes a decoder stream for one message. */
  constructor(kind: "request" | "response", options: HttpDecoderOptions = {}) {
    const decoder = new HttpMessageDecoder(kind, options);
    const drain = (controller: TransformStreamDefaultController<HttpEvent>) => {
      for (let event = decoder.next(); event !== undefined; event = decoder.next()) {
        controller.enqueue(event);
        if (isBeforeTunnel(event, options.requestMethod)) return controller.terminate();
      }
    };
    super({
      transform: (chunk, controller) => {
        decoder.push(chunk);
        drain(controller);
      },
      flush: (controller) => {
        decoder.end();
        drain(controller);
      },
    });
  }
}

/**
 * Events of one message to its bytes, in the indeterminate-length form: the counterpart of
 * {@linkcode HttpMessageDecoderStream}. The `end` event may be left out: closing the stream ends the message.
 *
 * Events out of order error the stream with a `TypeError`. A CONNECT is all of its message: what follows is a tunnel.
 */
export class HttpMessageEncoderStream extends TransformStream<HttpEvent, Uint8Array> {
  /** Makes an encoder stream for one message. */
  constructor() {
    let state: "start" | "informational" | "content" | "ended" = "start";
    const expect = (event: HttpEvent, ...states: (typeof state)[]) => {
      if (!states.includes(state)) {
        throw new TypeError(`Cannot encode message: "${event.type}" is out of order`);
      }
    };
    super({
      transform: (event, controller) => {
        switch (event.type) {
          case "request":
            expect(event, "start");
            controller.enqueue(encodeHttpRequest(event.head));
            state = isBeforeTunnel(event) ? "ended" : "content";
            break;
          case "informational":
          case "response":
            expect(event, "start", "informational");
            controller.enqueue(encodeHttpResponse(event.head, { continued: state === "informational" }));
            state = event.type === "response" ? "content" : "informational";
            break;
          case "data":
            expect(event, "content");
            if (event.data.length > 0) controller.enqueue(encodeHttpChunk(event.data));
            break;
          case "trailers":
            expect(event, "content");
            controller.enqueue(encodeHttpEnd(event.fields));
            state = "ended";
            break;
          case "end":
            expect(event, "content", "ended");
            if (state === "content") controller.enqueue(encodeHttpEnd());
            state = "ended";
            break;
        }
      },
      flush: (controller) => {
        if (state === "content") controller.enqueue(encodeHttpEnd());
        else if (state !== "ended") {
          throw new HtxError("MALFORMED", "Cannot encode HTTP message: it has no head", { field: "message" });
        }
      },
    });
  }
}

/** Whether the head is followed by a tunnel rather than by the rest of a message. */
function isBeforeTunnel(event: HttpEvent, requestMethod = "GET"): boolean {
  if (event.type === "request") return event.head.method === "CONNECT";
  return event.type === "response" && opensTunnel(event.head.status, requestMethod);
}

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

/**
 * Bytes of one message, in chunks of any size, to its events. The end of the bytes is the end of the direction: what
 * is cut off errors the stream with `MALFORMED`. The `data` of events are views of the chunks.
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
      for (let event = decoder.next(); event !== undefined; event = decoder.next()) controller.enqueue(event);
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
 * Events out of order error the stream with a `TypeError`.
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
            state = "content";
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

/**
 * HTTP over one stream (HTX 1.1 §5): the RFC 9292 message codec, sans-IO and as TransformStreams, and exchanges on
 * top of it, as `Request` and `Response` or as the parts that are on the wire.
 *
 * @example A message to bytes and back
 * ```ts
 * import { encodeHttpResponse, HttpMessageDecoder } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const decoder = new HttpMessageDecoder("response");
 * decoder.push(encodeHttpResponse({ status: 200, fields: [["etag", '"1"']] }, { content: new Uint8Array([1, 2]) }));
 * decoder.end();
 * assertEquals(decoder.next(), { type: "response", head: { status: 200, fields: [["etag", '"1"']] } });
 * assertEquals(decoder.next(), { type: "data", data: new Uint8Array([1, 2]) });
 * assertEquals(decoder.next(), { type: "end" });
 * ```
 *
 * @module
 */

export { HttpBody, type HttpBodyEvents } from "./body.ts";
export {
  connectOverStream,
  exchangeOverStream,
  fetchOverStream,
  type FetchOverStreamOptions,
  type HttpExchangeOptions,
  type HttpRequestParts,
  type HttpResponse,
  type HttpTunnel,
  requestParts,
  toResponse,
} from "./client.ts";
export { type HttpDecoderOptions, type HttpEvent, HttpMessageDecoder } from "./decode.ts";
export {
  encodeHttpChunk,
  encodeHttpChunkHeader,
  encodeHttpEnd,
  encodeHttpRequest,
  encodeHttpResponse,
  type HttpMessageRest,
} from "./encode.ts";
export {
  DEFAULT_HTTP_LIMITS,
  type HttpField,
  type HttpLimits,
  type HttpRequestHead,
  type HttpResponseHead,
  httpStatusOf,
  isWebSocketRequest,
} from "./message.ts";
export { type HttpContent, HttpSource, type HttpTrailers } from "./send.ts";
export {
  type HttpConnectionInfo,
  type HttpExchangeHandler,
  type HttpExchangeInfo,
  type HttpHandler,
  type HttpRequest,
  type HttpRequestInfo,
  type HttpResponseParts,
  serveHttpExchange,
  type ServeHttpOptions,
  serveHttpStream,
  type ServeHttpStreamOptions,
} from "./server.ts";
export type { HttpStream } from "./stream.ts";
export { HttpMessageDecoderStream, HttpMessageEncoderStream } from "./streams.ts";
export {
  relayWebSocket,
  type RelayWebSocketOptions,
  StreamWebSocket,
  type StreamWebSocketEventMap,
  type StreamWebSocketHandler,
  type UpgradeWebSocketOptions,
  webSocketOverStream,
  type WebSocketOverStreamOptions,
  type WebSocketProxyOptions,
  webSocketProxyUpstream,
  type WebSocketUpgrade,
} from "./websocket.ts";
export {
  encodeWebSocketClose,
  encodeWebSocketFrame,
  WebSocketDecoder,
  type WebSocketDecoderOptions,
  type WebSocketEvent,
  WebSocketOpcode,
} from "./websocket_frames.ts";
export {
  type Bytes,
  type CloseCodeName,
  type DuplexAddr,
  HtxError,
  type HtxErrorCode,
  type HtxErrorOptions,
} from "../../core/mod.ts";

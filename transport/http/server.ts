/**
 * The server side of an exchange: a request comes in on a stream, a handler answers it (HTX 1.1 §5).
 *
 * {@linkcode serveHttpExchange} hands out heads as they are on the wire; {@linkcode serveHttpStream} takes a fetch
 * handler. Both settle when the response has been sent and never reject: what goes wrong on the handler's side goes
 * to `onError`, what goes wrong on the peer's side aborts the handler's signal.
 *
 * @module
 */

import { timerDelay } from "../../core/_timer_delay.ts";
import { getLogger } from "@logtape/logtape";
import { tell } from "../../core/_tell.ts";
import { type Bytes, type DuplexAddr, HtxError, utf8 } from "../../core/mod.ts";
import { hasStaticBody } from "./_static_body.ts";
import { streamRequest } from "./_stream_request.ts";
import { HttpBody } from "./body.ts";
import { fieldsOf, headersOf, trailerFields } from "./client.ts";
import { HttpMessageDecoder } from "./decode.ts";
import { encodeHttpResponse } from "./encode.ts";
import {
  type HttpField,
  type HttpLimits,
  type HttpRequestHead,
  type HttpResponseHead,
  httpStatusOf,
  isWebSocketRequest,
} from "./message.ts";
import {
  cancelQuietly,
  type HttpContent,
  type HttpTrailers,
  isReadAsItGoes,
  type Outgoing,
  sendMessage,
} from "./send.ts";
import type { HttpStream } from "./stream.ts";
import { TunnelStream } from "./tunnel.ts";
import {
  prepareUpgrade,
  type StreamWebSocket,
  type UpgradeWebSocketOptions,
  type WebSocketUpgrade,
} from "./websocket.ts";

/** What an exchange knows of the session below it; an `HtxConnection` is one. */
export interface HttpConnectionInfo {
  /** The peer's static public key: who it is. */
  readonly remoteStatic?: Uint8Array | undefined;
  /** Where the peer stands, as the carrier reports it. */
  readonly remoteAddr?: DuplexAddr | undefined;
}

/** A request that is being received. */
export interface HttpRequest extends HttpRequestHead {
  /** The content, read as it is asked for. */
  readonly body: HttpBody;
}

/** A response to send. An `HttpResponse` that was received can be sent on as it is. */
export interface HttpResponseParts extends HttpResponseHead {
  /** The content; left out for HEAD, 204 and 304. @default {null} */
  readonly body?: HttpContent | null;
  /** Trailer lines, or a function that gives them when the content has been sent. */
  readonly trailers?: HttpTrailers;
  /**
   * Takes the stream over after a 2xx answer to a WebSocket request ({@linkcode isWebSocketRequest}): both
   * directions are then WebSocket frames. The exchange lasts until what this returns settles.
   */
  readonly upgrade?: (stream: HttpStream) => void | Promise<void>;
}

/** What a handler of {@linkcode serveHttpExchange} learns beside the request. */
export interface HttpExchangeInfo {
  /** The number of the stream. */
  readonly streamId: number;
  /** The session below, if the server gave it. */
  readonly connection: HttpConnectionInfo | undefined;
  /** Aborts when the client gives up, the session ends, or the request turns out malformed. */
  readonly signal: AbortSignal;
  /**
   * Sends an informational response (100, 102..199) at once, at most 16 of them and before the final one.
   *
   * @throws {TypeError} when it is too late, or the head cannot be sent
   */
  sendInformational(head: HttpResponseHead): Promise<void>;
}

/** Answers a request given as it is on the wire. */
export type HttpExchangeHandler = (
  request: HttpRequest,
  info: HttpExchangeInfo,
) => HttpResponseParts | Promise<HttpResponseParts>;

/** Options of {@linkcode serveHttpExchange} and {@linkcode serveHttpStream}. */
export interface ServeHttpOptions {
  /** The session below, handed to the handler. */
  connection?: HttpConnectionInfo | undefined;
  /** Bounds on the request. @default {DEFAULT_HTTP_LIMITS} */
  limits?: HttpLimits | undefined;
  /**
   * Milliseconds within which the head must be complete; then the stream is reset with TIMEOUT. 0 turns it off.
   *
   * @default {30000}
   */
  headTimeoutMs?: number | undefined;
  /**
   * Called with what a handler, its response's body or its trailers failed with. @default {logged as an error under
   * the LogTape category `["htx", "http"]`}
   */
  onError?: ((error: unknown) => void) | undefined;
}

/** The most informational responses before a final one (HTX 1.1 §5). */
const MAX_INFORMATIONAL = 16;
const DEFAULT_HEAD_TIMEOUT = 30_000;
const TEXT: HttpField = /* @__PURE__ */ Object.freeze(["content-type", "text/plain; charset=utf-8"] as const);
const REASONS: Readonly<Record<number, string>> = /* @__PURE__ */ Object.freeze({
  400: "Bad Request",
  414: "URI Too Long",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
});

/**
 * Serves one exchange on a stream that the client opened. Resolves when the response has been sent, whatever became
 * of it; never rejects.
 *
 * - A malformed head is answered 400, one past a limit 414 or 431, CONNECT, TRACE and TRACK 501 (save the WebSocket form).
 * - What the handler throws becomes a 500; a failure after the head was sent resets the stream (INTERNAL_ERROR).
 */
export async function serveHttpExchange(
  stream: HttpStream,
  handler: HttpExchangeHandler,
  options: ServeHttpOptions = {},
): Promise<void> {
  const exchange = new ServerExchange(stream, options);
  await exchange.run(handler);
}

class ServerExchange implements HttpExchangeInfo {
  readonly #stream: HttpStream;
  readonly #options: ServeHttpOptions;
  readonly #decoder: HttpMessageDecoder;
  /** Whether the end of the request's direction has been read. */
  #requestEnded = false;
  #responding = false;
  #informational = 0;

  constructor(stream: HttpStream, options: ServeHttpOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#decoder = new HttpMessageDecoder("request", { limits: options.limits });
  }

  get streamId(): number {
    return this.#stream.id;
  }

  get connection(): HttpConnectionInfo | undefined {
    return this.#options.connection;
  }

  get signal(): AbortSignal {
    return this.#stream.signal;
  }

  async sendInformational(head: HttpResponseHead): Promise<void> {
    if (this.#responding) {
      throw new TypeError("Cannot send informational response: the final one is on its way");
    }
    if (head.status < 100 || head.status > 199) {
      throw new TypeError(`Cannot send informational response: ${head.status} is not one`);
    }
    if (this.#informational >= MAX_INFORMATIONAL) {
      throw new TypeError(`Cannot send informational response: ${MAX_INFORMATIONAL} have been sent`);
    }
    const bytes = encodeHttpResponse(head, { continued: this.#informational > 0 });
    this.#informational++;
    await this.#stream.write(bytes);
  }

  async run(handler: HttpExchangeHandler): Promise<void> {
    const stream = this.#stream;
    const decoder = this.#decoder;
    let head: HttpRequestHead;
    try {
      head = await this.#head();
    } catch (error) {
      // Reset or cut off before there was a request: there is nobody to answer.
      if (decoder.error !== error || !(error instanceof HtxError)) return;
      await this.#answer(httpStatusOf(error), decoder.failedMethod ?? "GET");
      if (!this.#requestEnded && !stream.signal.aborted) stream.stopSending();
      return;
    }
    const body = new HttpBody(stream, decoder, { cancelled: () => {}, settled: () => {} });
    const connect = head.method === "CONNECT";
    if (connect) body.abort(new TypeError("Cannot read content: a CONNECT has none"));
    else body.peek();
    const webSocket = connect && isWebSocketRequest(head);
    if (!webSocket && /^(?:connect|trace|track)$/i.test(head.method)) {
      await this.#answer(501, head.method);
    } else {
      const { method, scheme, authority, path, fields } = head;
      await this.#handle({ method, scheme, authority, path, fields, body }, handler, webSocket);
    }
    if (connect ? !this.#requestEnded : !body.ended) {
      // HTX 1.1 §5: a response may end while the request still flows.
      body.abort(
        new HtxError("CANCELLED", "Cannot read content: the response has been sent", { streamId: stream.id }),
      );
      if (!this.#gone()) stream.stopSending();
    }
  }

  async #head(): Promise<HttpRequestHead> {
    const stream = this.#stream;
    const decoder = this.#decoder;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      for (;;) {
        const event = decoder.next();
        if (event?.type === "request") return event.head;
        let chunk = stream.tryRead();
        if (chunk === undefined) {
          const timeout = timerDelay(this.#options.headTimeoutMs ?? DEFAULT_HEAD_TIMEOUT);
          if (timeout > 0 && timer === undefined) {
            timer = setTimeout(() => stream.reset("TIMEOUT", "request head not complete"), timeout);
          }
          chunk = await stream.read();
        }
        if (chunk === null) {
          this.#requestEnded = true;
          decoder.end();
        } else {
          decoder.push(chunk);
        }
      }
    } finally {
      if (timer !== undefined) clearTimeout(timer);
    }
  }

  async #handle(request: HttpRequest, handler: HttpExchangeHandler, webSocket: boolean): Promise<void> {
    let response: HttpResponseParts;
    try {
      const result = handler(request, this);
      response = result instanceof Promise ? await result : result;
      if (typeof response?.status !== "number") {
        throw new TypeError("Cannot answer: the handler did not return a response");
      }
    } catch (error) {
      if (this.#gone()) return;
      this.#report(error);
      return await this.#answer(500, request.method);
    }
    const { status, upgrade } = response;
    const accepted = webSocket && status >= 200 && status < 300;
    if (accepted && upgrade !== undefined) return await this.#upgrade(response, upgrade);
    const outgoing = this.#outgoing(response, request.method);
    try {
      if (accepted) throw new TypeError("Cannot accept WebSocket: the response has no upgrade function");
      if (status < 200) throw new TypeError(`Cannot answer: ${status} is no final status`);
      await sendMessage(outgoing);
    } catch (error) {
      await this.#sendFailed(outgoing, error, request.method);
    }
  }

  async #sendFailed(outgoing: Outgoing, error: unknown, method: string): Promise<void> {
    // The client has gone, or asked for no more: the source has been told.
    if (this.#gone() || (outgoing.headSent && !outgoing.sourceFailed)) return;
    const { content } = outgoing;
    if (isReadAsItGoes(content)) cancelQuietly(content, error);
    this.#report(error);
    if (outgoing.headSent) this.#stream.reset("INTERNAL_ERROR", "handler failed");
    else await this.#answer(500, method);
  }

  /** HTX 1.1 §5: after a 2xx head both directions are WebSocket frames. */
  async #upgrade(
    head: HttpResponseHead,
    upgrade: (stream: HttpStream) => void | Promise<void>,
  ): Promise<void> {
    const stream = this.#stream;
    let bytes: Bytes;
    try {
      bytes = encodeHttpResponse(head, { continued: this.#informational > 0 });
    } catch (error) {
      this.#report(error);
      return await this.#answer(500, "CONNECT");
    }
    this.#responding = true;
    try {
      await stream.write(bytes);
      await upgrade(new TunnelStream(stream, this.#decoder.takeRemaining()));
      this.#requestEnded = true; // Ending the stream was the tunnel's business.
    } catch (error) {
      this.#requestEnded = true;
      if (stream.signal.aborted) return;
      this.#report(error);
      stream.reset("INTERNAL_ERROR", "handler failed");
    }
  }

  #outgoing(response: HttpResponseParts, method: string): Outgoing {
    this.#responding = true;
    const { status } = response;
    return {
      stream: this.#stream,
      head: { response, continued: this.#informational > 0 },
      content: response.body,
      given: false,
      trailers: response.trailers,
      omitContent: method === "HEAD" || status === 204 || status === 304,
      headSent: false,
      sourceFailed: false,
    };
  }

  /** Sends a short answer of the server's own. */
  async #answer(status: number, method: string): Promise<void> {
    const outgoing = this.#outgoing(
      { status, fields: [TEXT], body: utf8(`${status} ${REASONS[status]}\n`) },
      method,
    );
    try {
      await sendMessage(outgoing);
    } catch {
      // The client has gone.
    }
  }

  /** Whether the stream has failed, so that no answer could be sent and no error is the handler's. */
  #gone(): boolean {
    return this.#decoder.error !== undefined || this.#stream.signal.aborted;
  }

  #report(error: unknown): void {
    const { onError } = this.#options;
    if (onError === undefined) {
      getLogger(["htx", "http"]).error("Handler failed on stream {streamId}: {error}", {
        streamId: this.#stream.id,
        error,
      });
      return;
    }
    tell(onError, error);
  }
}

/** What a fetch handler learns beside the request. */
export interface HttpRequestInfo {
  /** The number of the stream. */
  readonly streamId: number;
  /** The session below, if the server gave it. */
  readonly connection: HttpConnectionInfo | undefined;
  /** The client's static public key, if the server gave the session. */
  readonly remoteStatic: Uint8Array | undefined;
  /** Where the client stands, if the carrier below reports it. */
  readonly remoteAddr: DuplexAddr | undefined;
  /** Path and query byte for byte as sent: `request.url` has gone through a URL parser. */
  readonly rawPath: string;
  /** The trailers of the request, when its body has been read; rejects when that fails. */
  readonly requestTrailers: Promise<Headers>;
  /**
   * Sends an informational response at once: `sendInformational(103, { link: "</a.css>; rel=preload" })`.
   *
   * @throws {TypeError} when it is too late, or it cannot be sent
   */
  sendInformational(status: number, headers?: HeadersInit): Promise<void>;
  /** Sets the trailers of the response, or a function that gives them when its body has been sent. */
  setTrailers(trailers: HeadersInit | (() => HeadersInit | Promise<HeadersInit>)): void;
  /**
   * Accepts a WebSocket, as `Deno.upgradeWebSocket` does: the handler returns the response given. The request is one
   * for a WebSocket when its field `upgrade` says so.
   *
   * @throws {TypeError} when the request does not ask for a WebSocket, or was upgraded before
   */
  upgradeWebSocket(options?: UpgradeWebSocketOptions): WebSocketUpgrade;
}

/** A fetch handler, as of `Deno.serve`, Hono's `app.fetch` or a `{ fetch }` default export. */
export type HttpHandler = (request: Request, info: HttpRequestInfo) => Response | Promise<Response>;

/** Options of {@linkcode serveHttpStream}. */
export interface ServeHttpStreamOptions extends ServeHttpOptions {
  /**
   * Answers WebSocket requests in place of the fetch handler, such as {@linkcode webSocketProxyUpstream}.
   *
   * @default {the fetch handler is given a GET request with `upgrade: websocket`, and may call `info.upgradeWebSocket()`}
   */
  webSocket?: HttpExchangeHandler | undefined;
}

/**
 * Serves one exchange with a fetch handler. Resolves when the response has been sent, whatever became of it; never
 * rejects. See {@linkcode serveHttpExchange} for what answers what.
 *
 * The handler's `request.signal` aborts when the exchange fails (the client gives up, the session ends, the request turns
 * out malformed), and never because it went well.
 *
 * @example
 * ```ts
 * import { type HttpStream, serveHttpStream } from "@betanet/htx/transport";
 *
 * async function serve(stream: HttpStream): Promise<void> {
 *   await serveHttpStream(stream, (request) => new Response(`hello from ${new URL(request.url).pathname}`));
 * }
 * ```
 */
export function serveHttpStream(
  stream: HttpStream,
  handler: HttpHandler,
  options: ServeHttpStreamOptions = {},
): Promise<void> {
  const { webSocket } = options;
  return serveHttpExchange(stream, (request, info) => {
    if (request.method === "CONNECT" && webSocket !== undefined) return webSocket(request, info);
    return fetchExchange(stream, handler, request, info);
  }, options);
}

/** An {@linkcode HttpExchangeHandler}'s work done by a fetch handler. */
function fetchExchange(
  stream: HttpStream,
  handler: HttpHandler,
  received: HttpRequest,
  exchange: HttpExchangeInfo,
): HttpResponseParts | Promise<HttpResponseParts> {
  const connect = received.method === "CONNECT";
  let request: Request;
  try {
    // `Request` knows no CONNECT: as in HTTP/1.1, a WebSocket is asked for with GET.
    request = streamRequest(connect ? { ...received, method: "GET" } : received, stream);
  } catch {
    return plain(400); // The authority is no host that a URL can have.
  }
  const info = new FetchInfo(received, exchange);
  if (connect) return upgradeExchange(handler, request, info);
  const result = handler(request, info);
  if (result instanceof Promise) return result.then((response) => toParts(response, info));
  return toParts(result, info);
}

/** The answer to a WebSocket request: a 2xx accepts it, so one from a handler that knows of no WebSocket must not go out. */
async function upgradeExchange(
  handler: HttpHandler,
  request: Request,
  info: FetchInfo,
): Promise<HttpResponseParts> {
  let upgraded = false;
  try {
    const response = await handler(request, info);
    const parts = await toParts(response, info);
    if (parts.status < 200 || parts.status > 299) return parts;
    response.body?.cancel().catch(() => {}); // nobody is going to read it
    const { socket } = info;
    if (socket === undefined) return plain(501);
    upgraded = !request.signal.aborted; // else the client has gone, and nobody will take it over
    return { status: parts.status, fields: parts.fields, upgrade: (stream) => socket._start(stream) };
  } finally {
    if (!upgraded) info.socket?._refuse();
  }
}

function plain(status: number): HttpResponseParts {
  return { status, fields: [TEXT], body: `${status} ${REASONS[status]}\n` };
}

function toParts(response: Response, info: FetchInfo): HttpResponseParts | Promise<HttpResponseParts> {
  if (!(response instanceof Response)) {
    throw new TypeError("Cannot answer: the handler did not return a Response");
  }
  if (response.bodyUsed) {
    throw new TypeError("Cannot answer: the body of the handler's Response was already used");
  }
  const { status, headers } = response;
  const head = { status, fields: fieldsOf(headers), ...info.trailers && { trailers: info.trailers } };
  return hasStaticBody(response)
    ? response.bytes().then((body) => ({ ...head, body }))
    : { ...head, body: response.body };
}

class FetchInfo implements HttpRequestInfo {
  readonly #request: HttpRequest;
  readonly #exchange: HttpExchangeInfo;
  /** The trailers of the response, as set by the handler. */
  trailers: HttpTrailers | undefined;
  /** The WebSocket that the handler accepted. */
  socket: StreamWebSocket | undefined;

  constructor(request: HttpRequest, exchange: HttpExchangeInfo) {
    this.#request = request;
    this.#exchange = exchange;
  }

  get streamId(): number {
    return this.#exchange.streamId;
  }

  get connection(): HttpConnectionInfo | undefined {
    return this.#exchange.connection;
  }

  get remoteStatic(): Uint8Array | undefined {
    return this.#exchange.connection?.remoteStatic;
  }

  get remoteAddr(): DuplexAddr | undefined {
    return this.#exchange.connection?.remoteAddr;
  }

  get rawPath(): string {
    return this.#request.path;
  }

  get requestTrailers(): Promise<Headers> {
    const trailers = this.#request.body.trailers.then(headersOf);
    trailers.catch(() => {}); // Whoever asked may have stopped waiting.
    return trailers;
  }

  async sendInformational(status: number, headers?: HeadersInit): Promise<void> {
    await this.#exchange.sendInformational({ status, fields: fieldsOf(new Headers(headers)) });
  }

  setTrailers(trailers: HeadersInit | (() => HeadersInit | Promise<HeadersInit>)): void {
    this.trailers = trailerFields(trailers);
  }

  upgradeWebSocket(options: UpgradeWebSocketOptions = {}): WebSocketUpgrade {
    const { method, scheme, authority, path, fields } = this.#request;
    if (method !== "CONNECT") throw new TypeError("Cannot upgrade: the request does not ask for a WebSocket");
    if (this.socket !== undefined) throw new TypeError("Cannot upgrade: the request was upgraded before");
    const url = `${scheme === "https" ? "wss" : "ws"}://${authority}${path}`;
    const { socket, response } = prepareUpgrade(fields, url, options);
    this.socket = socket;
    // The client may go before the response has been sent.
    this.#exchange.signal.addEventListener("abort", () => socket._refuse(), { once: true });
    return { socket, response };
  }
}

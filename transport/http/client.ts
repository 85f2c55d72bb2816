/**
 * The client side of an exchange: a request goes out on a stream, the response comes back on it (HTX 1.1 §5).
 *
 * {@linkcode exchangeOverStream} works on heads as they are on the wire, so that a gateway forwards a path byte for
 * byte; {@linkcode fetchOverStream} puts `Request` and `Response` on top.
 *
 * @module
 */

import { tell } from "../../core/_tell.ts";
import { withoutControls } from "../../core/_controls.ts";
import { isOwn } from "../../core/_byte_stream.ts";
import { bytesResponse } from "./_bytes_response.ts";
import { HttpBody } from "./body.ts";
import { HttpMessageDecoder } from "./decode.ts";
import { encodeHttpRequest } from "./encode.ts";
import {
  type HttpField,
  type HttpLimits,
  type HttpRequestHead,
  type HttpResponseHead,
  isWebSocketRequest,
  opensTunnel,
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

/** A request to send. A {@linkcode HttpRequest} that was received can be sent on as it is. */
export interface HttpRequestParts extends HttpRequestHead {
  /** The content. @default {null} */
  readonly body?: HttpContent | null;
  /**
   * Whether the chunks of a streamed content are given away with it: their memory is used again once they are sent. For
   * content whose chunks nobody else looks at.
   *
   * @default {false}
   */
  readonly bodyGiven?: boolean;
  /** Trailer lines, or a function that gives them when the content has been sent. */
  readonly trailers?: HttpTrailers;
}

/** A response that is being received. */
export interface HttpResponse extends HttpResponseHead {
  /** The content, read as it is asked for. */
  readonly body: HttpBody;
}

/** Options of {@linkcode exchangeOverStream}. */
export interface HttpExchangeOptions {
  /** Gives the exchange up: the stream is reset with CANCELLED, whatever waits rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Called for each informational response (100, 102..199), in order, before the final one. What it throws ends the exchange. */
  onInformational?: ((head: HttpResponseHead) => void) | undefined;
  /** Bounds on the response. @default {DEFAULT_HTTP_LIMITS} */
  limits?: HttpLimits | undefined;
}

/**
 * Sends a request and resolves with the head of its response; the content follows as it is read. The request's own
 * content goes on being sent meanwhile.
 *
 * @throws {HtxError} when the stream fails or the response is malformed
 * @throws {TypeError} when the request cannot be sent as it is, or is a CONNECT that was accepted:
 *   {@linkcode connectOverStream} gives the tunnel
 * @throws the signal's reason, or what the request's content failed with
 */
export async function exchangeOverStream(
  stream: HttpStream,
  request: HttpRequestParts,
  options: HttpExchangeOptions = {},
): Promise<HttpResponse> {
  const { body } = request;
  if (options.signal?.aborted) {
    if (isReadAsItGoes(body)) cancelQuietly(body, options.signal.reason);
    stream.reset("CANCELLED", "aborted");
    throw options.signal.reason;
  }
  const exchange = orGiveBack(stream, () => new ClientExchange(stream, request.method, options));
  const outgoing: Outgoing = {
    stream,
    head: { request },
    content: body,
    given: request.bodyGiven ?? false,
    trailers: request.trailers,
    omitContent: false,
    headSent: false,
    sourceFailed: false,
  };
  sendMessage(outgoing).catch((error) => {
    // A failure of the stream shows where the response is read; and a peer that has answered may have asked for no more.
    if (!outgoing.headSent || outgoing.sourceFailed) exchange.giveUp(error, "request failed");
  }).then(() => exchange.directionEnded());
  const response = await exchange.response();
  if (opensTunnel(response.status, request.method)) {
    stream.reset("CANCELLED", "a tunnel is of no use here");
    throw new TypeError("Cannot exchange: the CONNECT was accepted, and what follows is no message");
  }
  return response;
}

/** What an exchange begins with. Where that fails its stream is let go of: the caller may have kept no hold of it. */
export function orGiveBack<T>(stream: HttpStream, make: () => T): T {
  try {
    return make();
  } catch (error) {
    stream.reset("CANCELLED", "exchange not begun");
    throw error;
  }
}

/** What a CONNECT gave: the response, and the tunnel if it was accepted. */
export interface HttpTunnel extends HttpResponse {
  /** Both directions behind the heads; absent unless the status is 2xx. */
  readonly tunnel?: HttpStream;
}

/**
 * Sends a CONNECT head (with `upgrade: websocket`: HTX 1.1 §5) and resolves with its answer; a 2xx comes with the
 * tunnel. Nothing may be sent on the stream before that.
 *
 * @throws {HtxError} when the stream fails or the response is malformed
 * @throws {TypeError} when the head is not such a CONNECT
 */
export async function connectOverStream(
  stream: HttpStream,
  head: HttpRequestHead,
  options: HttpExchangeOptions = {},
): Promise<HttpTunnel> {
  const bytes = orGiveBack(stream, () => {
    if (isWebSocketRequest(head)) return encodeHttpRequest(head);
    throw new TypeError("Cannot connect: the head is not a CONNECT with the field upgrade: websocket");
  });
  if (options.signal?.aborted) {
    stream.reset("CANCELLED", "aborted");
    throw options.signal.reason;
  }
  const exchange = orGiveBack(stream, () => new ClientExchange(stream, head.method, options));
  stream.write(bytes).catch(() => {}); // Shows where the response is read.
  exchange.directionEnded(); // From here on it is the tunnel's.
  const response = await exchange.response();
  if (!opensTunnel(response.status, head.method)) {
    stream.closeWrite().catch(() => {});
    return response;
  }
  return { ...response, tunnel: exchange.tunnel() };
}

/** The receiving half of a client's exchange, and what ends it early. */
class ClientExchange {
  readonly #stream: HttpStream;
  readonly #options: HttpExchangeOptions;
  readonly #requestMethod: string;
  readonly #decoder: HttpMessageDecoder;
  #body: HttpBody | undefined;
  /** Why this side gave up. */
  #failure: { readonly error: unknown } | undefined;
  readonly #onAbort: (() => void) | undefined;
  /** Directions that are under way. The signal is listened to until both have ended: an answer may come before them. */
  #open = 2;

  constructor(stream: HttpStream, requestMethod: string, options: HttpExchangeOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#requestMethod = requestMethod;
    this.#decoder = new HttpMessageDecoder("response", { limits: options.limits, requestMethod });
    const signal = options.signal;
    if (signal !== undefined) {
      this.#onAbort = () => this.giveUp(signal.reason, "aborted");
      signal.addEventListener("abort", this.#onAbort);
    }
  }

  giveUp(error: unknown, reason: string): void {
    if (this.#open === 0) return; // it is over, or a tunnel now
    this.#failure ??= { error };
    this.#release();
    this.#stream.reset("CANCELLED", reason);
    this.#body?.abort(error);
  }

  /** The request has been sent, or the response received; or not, and nothing more will be. */
  directionEnded(): void {
    if (--this.#open === 0) this.#release();
  }

  async response(): Promise<HttpResponse> {
    const stream = this.#stream;
    const decoder = this.#decoder;
    let head: HttpResponseHead;
    try {
      head = await this.#head();
    } catch (error) {
      this.#release();
      if (decoder.error === error) stream.reset("PROTOCOL_ERROR", "malformed HTTP message");
      else if (this.#failure === undefined) stream.reset("CANCELLED", "exchange failed");
      throw this.#failure === undefined ? error : this.#failure.error;
    }
    const body = new HttpBody(stream, decoder, {
      cancelled: () => stream.reset("CANCELLED", "response not wanted"),
      settled: () => this.directionEnded(),
    });
    this.#body = body;
    if (this.#failure !== undefined) throw this.#failure.error;
    if (opensTunnel(head.status, this.#requestMethod)) {
      body.abort(new TypeError("Cannot read content: what follows an accepted CONNECT is a tunnel"));
    } else {
      body.peek();
    }
    return { status: head.status, fields: head.fields, body };
  }

  /** The stream behind an accepted CONNECT: from here on it is the tunnel's, and the exchange's signal has no part in it. */
  tunnel(): HttpStream {
    this.#release();
    return new TunnelStream(this.#stream, this.#decoder.takeRemaining());
  }

  /** A hook that fails ends the exchange; an async function is a hook, too. */
  #inform(head: HttpResponseHead): void {
    const told: unknown = this.#options.onInformational?.(head);
    if (told instanceof Promise) told.catch((error) => this.giveUp(error, "exchange failed"));
  }

  async #head(): Promise<HttpResponseHead> {
    const stream = this.#stream;
    const decoder = this.#decoder;
    for (;;) {
      const event = decoder.next();
      if (event === undefined) {
        let chunk = stream.tryRead();
        if (chunk === undefined) chunk = await stream.read();
        if (chunk === null) decoder.end();
        else decoder.push(chunk);
      } else if (event.type === "informational") {
        this.#inform(event.head);
      } else if (event.type === "response") {
        return event.head;
      }
    }
  }

  #release(): void {
    if (this.#onAbort !== undefined) this.#options.signal?.removeEventListener("abort", this.#onAbort);
  }
}

/** Options of {@linkcode fetchOverStream}. */
export interface FetchOverStreamOptions {
  /** As in `fetch`; a `Request`'s own signal counts too. @default {none} */
  signal?: AbortSignal | null | undefined;
  /** Called for each informational response, in order: 103 Early Hints for one. */
  onInformational?: ((status: number, headers: Headers) => void) | undefined;
  /** Trailers of the request, or a function that gives them when its content has been sent. */
  trailers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>) | undefined;
  /** Called with the trailers of the response once its content has been read to the end, if there are any; what it throws is ignored. */
  onTrailers?: ((trailers: Headers) => void) | undefined;
  /** Bounds on the response. @default {DEFAULT_HTTP_LIMITS} */
  limits?: HttpLimits | undefined;
}

/**
 * `fetch` over one stream: the response resolves with its head, its body streams. Redirects are handed on as they
 * are, nothing is cached, no header is added. A body that is neither read to its end nor cancelled keeps the stream open.
 *
 * @throws {HtxError} when the stream fails or the response is malformed
 * @throws {TypeError} when the request cannot be sent as it is, or its body was used
 * @throws the signal's reason, or what the request's body failed with
 *
 * @example
 * ```ts
 * import { fetchOverStream, type HttpStream } from "@betanet/htx/transport";
 *
 * async function hello(stream: HttpStream): Promise<string> {
 *   const response = await fetchOverStream(stream, new Request("http://app.example/hello"));
 *   return await response.text();
 * }
 * ```
 */
export async function fetchOverStream(
  stream: HttpStream,
  request: Request | HttpRequestParts,
  options: FetchOverStreamOptions = {},
): Promise<Response> {
  const { onInformational, onTrailers, trailers } = options;
  let parts: HttpRequestParts;
  let signal = options.signal ?? undefined;
  if (request instanceof Request) {
    parts = orGiveBack(stream, () => requestParts(request));
    signal = signal === undefined ? request.signal : AbortSignal.any([signal, request.signal]);
  } else {
    parts = request;
  }
  if (trailers !== undefined) {
    parts = { ...parts, trailers: orGiveBack(stream, () => trailerFields(trailers)) };
  }
  const response = await exchangeOverStream(stream, parts, {
    signal,
    limits: options.limits,
    onInformational: onInformational && ((head) => onInformational(head.status, headersOf(head.fields))),
  });
  if (onTrailers !== undefined) {
    response.body.trailers.then((fields) => {
      if (fields.length > 0) tell(onTrailers, headersOf(fields));
    }, () => {}); // Whoever reads the body learns why there are none.
  }
  return toResponse(response, parts.method);
}

/**
 * The parts of a `Request`, its URL taken as text: what Deno's server puts there unresolved (dot segments, raw
 * characters) stays as it is. A `host` header is taken for the authority; a fragment is left out.
 *
 * @throws {TypeError} when the URL is not an http or https one, or the body was used
 */
export function requestParts(request: Request): HttpRequestParts {
  const { body } = request;
  if (body !== null && request.bodyUsed) {
    throw new TypeError("Cannot take request: its body was already used");
  }
  const { scheme, authority, path } = splitUrl(request.url);
  const fields = fieldsOf(request.headers);
  const host = fields.find(([name]) => name === "host");
  return {
    method: request.method,
    scheme,
    authority: host?.[1] || authority,
    path,
    fields,
    body,
  };
}

/** Scheme, authority and raw path of an absolute URL. */
function splitUrl(url: string): { scheme: string; authority: string; path: string } {
  const colon = url.indexOf("://");
  const scheme = url.slice(0, Math.max(colon, 0)).toLowerCase();
  if (scheme !== "http" && scheme !== "https") {
    throw new TypeError("Cannot take request: its URL is neither http nor https");
  }
  const start = colon + 3;
  let end = start;
  while (end < url.length && url[end] !== "/" && url[end] !== "?" && url[end] !== "#") end++;
  const hash = url.indexOf("#", end);
  const path = url.slice(end, hash < 0 ? undefined : hash);
  return { scheme, authority: url.slice(start, end), path: path.startsWith("/") ? path : `/${path}` };
}

/**
 * A `Response` whose body streams from the exchange, or holds the content if all of it is here. Control characters in the
 * values of fields are blanks in it: Deno's server ends with its process at a response that has any.
 */
export function toResponse(received: HttpResponse, requestMethod = "GET"): Response {
  const { status, fields, body } = received;
  const bodiless = status === 204 || status === 205 || status === 304 || requestMethod === "HEAD";
  if (bodiless && !body.ended) discard(body);
  const { complete } = body;
  const init = { status };
  const response = bodiless || complete === undefined
    ? new Response(bodiless ? null : body.stream(), init)
    : bytesResponse(isOwn(complete) ? complete : new Uint8Array(complete), init);
  const { headers } = response;
  for (const [name, value] of fields) headers.append(name, withoutControls(value));
  return response;
}

/** Reads the end, for its own sake: the head was all there was to this message. A 205 with content has none that counts. */
function discard(body: HttpBody): void {
  const drain = async () => {
    if (await body.read() !== null) body.cancel();
  };
  drain().catch(() => {}); // The exchange has dealt with the stream.
}

/** The lines of a `Headers`, `set-cookie` each on its own. */
export function fieldsOf(headers: Headers): HttpField[] {
  const fields: HttpField[] = [];
  headers.forEach((value, name) => {
    fields.push([name, value]);
  });
  return fields;
}

/** Lines as `Headers`. */
export function headersOf(fields: readonly HttpField[]): Headers {
  const headers = new Headers();
  for (const [name, value] of fields) headers.append(name, value);
  return headers;
}

/** Trailers in the form that goes out. */
export function trailerFields(
  trailers: HeadersInit | (() => HeadersInit | Promise<HeadersInit>),
): HttpTrailers {
  if (typeof trailers !== "function") return fieldsOf(new Headers(trailers));
  return async () => fieldsOf(new Headers(await trailers()));
}

/**
 * One request on its way through a `Gateway`: upstream, back, and out of whatever goes wrong in between.
 *
 * @module
 */

import type { Logger } from "@logtape/logtape";
import { type HtxConnection, HtxError, type HtxStream } from "../core/mod.ts";
import {
  exchangeOverStream,
  type HttpBody,
  type HttpRequestParts,
  type HttpResponse,
  HttpSource,
  REDIAL_MS,
} from "../transport/mod.ts";
import type { AdmissionOutcome } from "./admission.ts";
import { within } from "../core/_deferred.ts";
import { hasControls } from "../core/_controls.ts";
import { appendForwarding, type ClientFacts } from "./forwarded.ts";
import type { FrontInfo } from "./front.ts";
import { privately } from "./_cache.ts";
import { offerToLend } from "./_lending.ts";
import type { resolveGatewayLimits } from "./limits.ts";
import type { GatewayMetrics, Outcome } from "./metrics.ts";
import { type ParsedRequest, pathOf } from "./request.ts";
import type { GatewaySpan, Tracing } from "./tracing.ts";
import type { Upstream, UpstreamPool } from "./upstreams.ts";

/**
 * Age of a request, in ms, from which on it is watched whether its client has gone. Deno prints a warning about its signals
 * with the first answer to a request whose signal was looked at: short requests shall not cause it.
 */
const CLIENT_WATCH_MS = 500;
/** How often it is tried again to send a request that no application has seen. */
const MAX_RETRIES = 3;
/** What a client may take to go on with a request whose answer breaks off, before it is broken off all the same, in ms. */
const READING_MS = 1000;
/** RFC 9110 §9.2.2. */
const IDEMPOTENT: ReadonlySet<string> = /* @__PURE__ */ new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
const RETRY_AFTER_SECONDS = "1";

const REASONS: Readonly<Record<number, string>> = /* @__PURE__ */ Object.freeze({
  400: "Bad Request",
  413: "Content Too Large",
  414: "URI Too Long",
  431: "Request Header Fields Too Large",
  499: "Client Closed Request",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
});

/** What the body of a request tells of its way upstream. */
interface UploadEvents {
  /** A read has begun. */
  reading(reading: Promise<unknown>): void;
  /** So many bytes came. What it throws ends the upload, and whoever reads it cancels it. */
  read(length: number): void;
  /** Settles once the read that is under way is over, or the client has not gone on with it for long. */
  over(): Promise<void> | undefined;
}

/** The body of a request, from its front to the stream. */
class Upload extends HttpSource {
  readonly #body: ReadableStream<Uint8Array>;
  readonly #events: UploadEvents;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;

  constructor(body: ReadableStream<Uint8Array>, events: UploadEvents) {
    super();
    this.#body = body;
    this.#events = events;
  }

  async read(): Promise<Uint8Array | null> {
    const reading = (this.#reader ??= this.#body.getReader()).read();
    this.#events.reading(reading);
    const { value, done } = await reading;
    this.#events.read(value?.length ?? 0);
    return done ? null : value;
  }

  async cancel(reason: unknown): Promise<void> {
    await this.#events.over();
    // Whoever has the lock ends the reading; without one the front discards the body itself.
    await (this.#reader?.cancel(reason) ?? this.#body.cancel(reason)).catch(() => {});
  }
}

/** What an exchange needs of its gateway. */
export interface ExchangeHost {
  /** Counters. */
  readonly metrics: GatewayMetrics;
  readonly _pool: UpstreamPool;
  readonly _limits: ReturnType<typeof resolveGatewayLimits>;
  readonly _tracing: Tracing;
  readonly _log: Logger;
  /** Grows by one with each look at the running exchanges. */
  readonly _turn: number;
  /** The exchange runs from now on. */
  _entered(exchange: Exchange): void;
  /** The exchange is over. */
  _left(exchange: Exchange): void;
}

/** Why the gateway itself ended an exchange. */
type GiveUp = "client-gone" | "slow" | "moved" | "stopping" | "too-large";

/** One request on its way. */
export class Exchange {
  readonly #gateway: ExchangeHost;
  readonly request: Request;
  readonly info: FrontInfo;
  readonly parsed: ParsedRequest;
  readonly facts: ClientFacts;
  readonly id: string;
  readonly #started: number;
  readonly #admitted: (AdmissionOutcome & { admitted: true }) | undefined;
  readonly #limits: ReturnType<typeof resolveGatewayLimits>;
  /** Whether the answer's head has not come yet. */
  waiting = true;
  upstream: Upstream | undefined;
  /** Its place among those that run, from the gateway. */
  _number = 0;
  #stream: HtxStream | undefined;
  #connection: HtxConnection | undefined;
  #dialing: AbortController | undefined;
  /** Places for a hook's streams that are being waited for. */
  #opening: Set<AbortController> | undefined;
  #wake: (() => void) | undefined;
  /** Breaks off an answer that is being streamed. */
  #cut: ((error: HtxError) => void) | undefined;
  #replays = 0;
  #gaveUp: GiveUp | undefined;
  #watching = false;
  #over = false;
  #sentAt = 0;
  #headAt = 0;
  #status = 0;
  #bytesOut = 0;
  #bytesIn = 0;
  #turn: number;
  #progressAt: number;
  #span: GatewaySpan | undefined;
  #bodyStarted = false;
  /** The read of the request's body that is under way. */
  #reading: Promise<unknown> | undefined;
  readonly #onClientGone = () => this.giveUp("client-gone");

  constructor(
    gateway: ExchangeHost,
    request: Request,
    info: FrontInfo,
    parsed: ParsedRequest,
    facts: ClientFacts,
    id: string,
    started: number,
    admitted: (AdmissionOutcome & { admitted: true }) | undefined,
  ) {
    this.#gateway = gateway;
    this.request = request;
    this.info = info;
    this.parsed = parsed;
    this.facts = facts;
    this.id = id;
    this.#started = started;
    this.#admitted = admitted;
    this.#limits = gateway._limits;
    this.#turn = gateway._turn;
    this.#progressAt = started;
  }

  get target(): string {
    return this.#admitted?.target ?? this.parsed.path;
  }

  get setCookie(): string | undefined {
    return this.#admitted?.setCookie;
  }

  /** Whether it can be sent a second time: RFC 9110 §9.2.2, and its body, if it has one, is still here. */
  get replayable(): boolean {
    return IDEMPOTENT.has(this.parsed.method) && !this.#bodyStarted;
  }

  /** Whether it can go to another upstream while it waits: nothing of it has been sent, or it can be sent again. */
  get movable(): boolean {
    if (this.parsed.webSocket) return (this.#opening?.size ?? 0) > 0; // else its hook has the stream
    return this.replayable || (this.#stream === undefined && !this.#bodyStarted);
  }

  /** The fields that go upstream. */
  fields(): [string, string][] {
    const { parsed } = this;
    const fields = this.#admitted?.fields ?? parsed.fields;
    const cookies = this.#admitted?.cookies ?? parsed.cookies;
    for (const line of cookies) fields.push(["cookie", line]);
    fields.push(["x-request-id", this.id]);
    appendForwarding(fields, this.facts);
    return fields;
  }

  async run(): Promise<Response> {
    const gateway = this.#gateway;
    gateway._entered(this);
    const tracing = gateway._tracing;
    let fields = this.fields();
    if (tracing.active) {
      this.#span = tracing.start(this.parsed.method, pathOf(this.target), this.facts.scheme);
      fields = fields.filter(([name]) =>
        name !== "traceparent" && name !== "tracestate" && name !== "baggage"
      );
      this.#span.inject(fields);
    }
    const parts = this.#parts(fields);
    let tried: Set<Upstream> | undefined;
    for (let attempt = 0;; attempt++) {
      const upstream = this.upstream = gateway._pool.pick(tried);
      try {
        const response = await this.#exchange(upstream, parts);
        gateway._pool.worked(upstream);
        return this.#answer(response);
      } catch (error) {
        if (!this.#report(upstream, error) || attempt >= MAX_RETRIES) return this.failed(error);
        // Told to move, by the pool or by its own report of the failure just now: that is what follows.
        if (this.#gaveUp === "moved") this.#gaveUp = undefined;
        (tried ??= new Set()).add(upstream);
        // With nowhere else to go, an upstream that restarts is given a moment.
        if (tried.has(gateway._pool.pick(tried)) && upstream.ready === undefined) {
          await this.#pause(REDIAL_MS);
        }
        if (this.#gaveUp !== undefined) return this.failed(error);
        gateway.metrics.retries++;
      }
    }
  }

  /** Runs the handshake of a WebSocket, under the limits that hold for any answer's head. */
  async handshake<T>(run: (signal: AbortSignal) => T | Promise<T>): Promise<T> {
    this.#gateway._entered(this);
    const { signal } = this.#dialing = new AbortController();
    const { promise: givenUp, reject } = Promise.withResolvers<never>();
    this.#wake = () => reject(new HtxError("CANCELLED", "Handshake was given up"));
    this.#watch(); // from the start: whoever has left before the upgrade is noticed by nobody after it
    return await Promise.race([run(signal), givenUp]);
  }

  /** Opens a stream for a hook, on another upstream where one cannot be reached or is left meanwhile. */
  async openStream(signal: AbortSignal): Promise<HtxStream> {
    const pool = this.#gateway._pool;
    const tried = new Set<Upstream>();
    for (;;) {
      const upstream = this.upstream = pool.pick(tried);
      const opening = new AbortController();
      (this.#opening ??= new Set()).add(opening);
      try {
        return (await pool.open(upstream, AbortSignal.any([signal, opening.signal]))).stream;
      } catch (error) {
        tried.add(upstream);
        if (signal.aborted || tried.has(pool.pick(tried))) throw error;
        this.#gateway.metrics.retries++;
      } finally {
        this.#opening?.delete(opening);
      }
    }
  }

  /** The handshake is done: from now on the connection is counted and cut by whoever holds it. */
  established(): void {
    this.#unwatch();
    this.#gateway._left(this);
  }

  /** Waits, unless the exchange is given up meanwhile. */
  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#wake = resolve;
    await promise;
    clearTimeout(timer);
    this.#wake = undefined;
  }

  #parts(fields: [string, string][]): HttpRequestParts {
    const { parsed } = this;
    const head = {
      method: parsed.method,
      scheme: this.facts.scheme,
      authority: parsed.authority,
      path: this.target,
      fields,
    };
    const held = this.#admitted?.body;
    if (held !== undefined) {
      this.#bytesIn = held.length;
      const length = String(held.length);
      return {
        ...head,
        fields: fields.map((field) =>
          field[0] === "content-length" ? ["content-length", length] as const : field
        ),
        body: held,
      };
    }
    const { body } = this.request;
    if (body === null || parsed.method === "GET" || parsed.method === "HEAD") return { ...head, body: null };
    const { requestTrailers } = this.info;
    return {
      ...head,
      body: new Upload(body, this.#uploadEvents()),
      bodyGiven: true,
      ...(requestTrailers !== undefined && { trailers: requestTrailers }),
    };
  }

  /** The request's body is counted on its way, which also shows that an upload goes on. */
  #uploadEvents(): UploadEvents {
    const limit = this.#limits.bodyBytes;
    return {
      reading: (reading) => {
        this.#bodyStarted = true;
        this.#reading = reading;
      },
      read: (length) => {
        this.#reading = undefined;
        this.#turn = this.#gateway._turn;
        this.#bytesIn += length;
        if (limit === 0 || this.#bytesIn <= limit) return;
        this.giveUp("too-large");
        throw new HtxError("LIMIT_EXCEEDED", "Cannot forward request: its body is too large");
      },
      over: () => this.#cut && this.#readingOver(), // an answer that is whole does not break off
    };
  }

  /**
   * Settles once the read of the request's body that is under way is over, or the client has not gone on with it for long.
   * Deno's server keeps a connection for ever whose answer breaks off during such a read, even if that was cancelled.
   */
  #readingOver(): Promise<void> | undefined {
    const reading = this.#reading;
    return reading && within(reading.catch(() => {}), READING_MS);
  }

  async #exchange(upstream: Upstream, parts: HttpRequestParts): Promise<HttpResponse> {
    const pool = this.#gateway._pool;
    this.#dialing = undefined; // an earlier attempt's may be aborted
    let connection = upstream.ready;
    let stream: HtxStream;
    if (connection !== undefined) {
      stream = await connection.createBidirectionalStream();
    } else {
      this.#dialing = new AbortController();
      if (this.#gaveUp !== undefined) this.#dialing.abort();
      ({ connection, stream } = await pool.open(upstream, this.#dialing.signal));
      this.#dialing = undefined;
    }
    if (this.#gaveUp !== undefined) {
      stream.reset("CANCELLED");
      throw new HtxError("CANCELLED", "Request was given up");
    }
    this.#stream = stream;
    this.#connection = connection;
    this.#sentAt = performance.now();
    const { sendInformational } = this.info;
    return await exchangeOverStream(
      stream,
      parts,
      sendInformational === undefined ? undefined : {
        onInformational: ({ status, fields }) => {
          if (status === 103) sendInformational(status, fields);
        },
      },
    );
  }

  /** Tells the pool of a failure; whether to try again elsewhere. */
  #report(upstream: Upstream, error: unknown): boolean {
    const pool = this.#gateway._pool;
    const gaveUp = this.#gaveUp;
    if (gaveUp !== undefined && gaveUp !== "moved") return false;
    const sent = this.#stream !== undefined;
    this.#stream = undefined;
    if (gaveUp === "moved") return !sent || this.#mayReplay();
    if (!(error instanceof HtxError)) return false;
    if (error.retryable) {
      // Never given to the application. A session that refuses because it drains is left by itself.
      const connection = this.#connection;
      if (error.code === "GOING_AWAY" && connection !== undefined && !connection.closing) {
        connection.drain().catch(() => {}); // it ends when its last stream does
      }
      return !this.#bodyStarted && error.code !== "REFUSED";
    }
    switch (error.code) {
      case "CONNECT_FAILED":
      case "HANDSHAKE_FAILED":
        if (sent) pool.broke(upstream, error);
        return !sent || this.#mayReplay();
      case "TRUNCATED":
      case "CLOSED":
      case "GOING_AWAY": // of the session: one of a stream is retryable
        pool.broke(upstream, error);
        return !sent || this.#mayReplay();
      default:
        // A session-wide error (no stream is named) took this request with it.
        if (error.streamId !== undefined || !sent) return false;
        pool.broke(upstream, error);
        return this.#mayReplay();
    }
  }

  /** What may have reached an application goes out once more, and no more often. */
  #mayReplay(): boolean {
    return this.replayable && this.#replays++ === 0;
  }

  /** Looks at the time, now and then. */
  look(now: number): void {
    const { _turn } = this.#gateway;
    if (this.#turn === _turn - 1) this.#progressAt = now; // bytes moved since the last look
    const limits = this.#limits;
    if (limits.requestTimeoutMs > 0 && now - this.#started >= limits.requestTimeoutMs) {
      return this.giveUp("slow");
    }
    if (this.waiting) {
      if (limits.responseTimeoutMs > 0 && now - this.#progressAt >= limits.responseTimeoutMs) {
        return this.giveUp("slow");
      }
      if (!this.#watching && now - this.#started >= CLIENT_WATCH_MS) {
        this.#watch();
      }
    } else if (limits.idleTimeoutMs > 0 && now - this.#progressAt >= limits.idleTimeoutMs) {
      this.giveUp("slow");
    }
  }

  giveUp(why: GiveUp): void {
    if (this.#over || this.#gaveUp !== undefined) return;
    if (why === "moved" && this.#opening !== undefined && this.#opening.size > 0) {
      for (const opening of this.#opening) {
        opening.abort(new HtxError("CONNECT_FAILED", "Cannot reach upstream: it does not answer"));
      }
      return;
    }
    this.#gaveUp = why;
    this.#dialing?.abort();
    this.#wake?.();
    const code = why === "slow" ? "TIMEOUT" : "CANCELLED";
    this.#stream?.reset(code);
    this.#cut?.(new HtxError(code, "Answer was cut"));
  }

  #answer(received: HttpResponse): Response {
    const { status, body } = received;
    this.waiting = false;
    this.#headAt = performance.now();
    this.#turn = this.#gateway._turn;
    this.#progressAt = this.#headAt;
    this.#status = status;
    this.#unwatch();
    const { setTrailers } = this.info;
    let headers: [string, string][] = [];
    for (const field of received.fields) {
      if (setTrailers === undefined && field[0] === "trailer") continue;
      if (status === 205 && field[0] === "content-length") continue; // RFC 9110 §15.3.6: there is no content
      if (hasControls(field[1])) return this.#unfit(body, `the field ${field[0]} holds a control character`);
      headers.push(field as [string, string]);
    }
    const { setCookie } = this;
    if (setCookie !== undefined) headers = [...privately(headers), ["set-cookie", setCookie]];
    const contentless = status === 204 || status === 205 || status === 304;
    const bodiless = contentless || this.parsed.method === "HEAD";
    const { complete } = body;
    let content: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null;
    if (bodiless) {
      if (!body.ended) body.cancel();
      // Deno.serve takes null for a content of length 0, which a HEAD would tell of its GET (RFC 9110 §8.6).
      content = contentless || headers.some(([name]) => name === "content-length") ? null : emptyStream();
      this.#finish("forwarded");
    } else if (complete !== undefined) {
      this.#bytesOut = complete.length;
      if (setTrailers !== undefined) body.trailers.then(setTrailers, () => {});
      content = complete.buffer instanceof ArrayBuffer
        ? complete as Uint8Array<ArrayBuffer>
        : complete.slice();
      this.#finish("forwarded");
    } else {
      content = this.#download(body);
    }
    try {
      const response = new Response(content as BodyInit | null, { status, headers });
      if (!bodiless && content instanceof ReadableStream) offerToLend(response, content, body);
      return response;
    } catch (error) {
      return this.#unfit(body, messageOf(error));
    }
  }

  /** The answer to a request whose answer from the upstream no front could send. */
  #unfit(body: HttpBody, reason: string): Response {
    body.cancel();
    this.#status = 502;
    this.#finish("upstream-malformed");
    this.#gateway._log.warn("Answer to {id} cannot be carried: {reason}", { id: this.id, reason });
    return plain(502, "the upstream's answer cannot be carried", this.id, false, this.setCookie);
  }

  #download(body: HttpBody): ReadableStream<Uint8Array> {
    const { setTrailers } = this.info;
    const deliver = (
      controller: ReadableStreamDefaultController<Uint8Array>,
      data: Uint8Array | null,
    ): Promise<void> | void => {
      this.#turn = this.#gateway._turn;
      if (data === null) {
        const end = () => {
          this.#finish("forwarded");
          controller.close();
        };
        if (setTrailers === undefined) return end();
        return body.trailers.then((fields) => {
          if (fields.length > 0) setTrailers(fields);
        }).then(end);
      } else {
        this.#bytesOut += data.length;
        controller.enqueue(data);
      }
    };
    const fail = async (error: unknown): Promise<never> => {
      this.#finish(this.#gaveUp === "client-gone" ? "client-gone" : "cut");
      await this.#readingOver();
      throw error;
    };
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        // A client that reads no more asks for no chunk with which to tell it, and would count as running for ever.
        this.#cut = (error) => {
          this.#finish("cut");
          const breakOff = () => controller.error(error);
          const readingOver = this.#readingOver();
          if (readingOver === undefined) breakOff();
          else readingOver.then(breakOff);
        };
      },
      pull: (controller): Promise<void> | void => {
        let data: Uint8Array | null | undefined;
        try {
          data = body.tryRead();
        } catch (error) {
          return fail(error);
        }
        if (data !== undefined) return deliver(controller, data);
        return body.read().then((late) => deliver(controller, late), fail);
      },
      cancel: (reason) => {
        this.#gaveUp ??= "client-gone";
        body.cancel(reason);
        this.#finish("client-gone");
      },
    }, { highWaterMark: 0 });
  }

  /** The answer of a hook. One with a body is under the limits of any answer until that ends. */
  upgraded(response: Response): Response {
    this.waiting = false;
    this.#status = response.status;
    this.#headAt = this.#progressAt = performance.now();
    this.#turn = this.#gateway._turn;
    this.#unwatch();
    const { body } = response;
    if (body === null) {
      this.#finish("upgraded");
      return response;
    }
    const reader = body.getReader();
    const content = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#cut = (error) => {
          this.#finish("cut");
          controller.error(error);
          reader.cancel(error).catch(() => {});
        };
      },
      pull: async (controller) => {
        try {
          const { value, done } = await reader.read();
          if (this.#over) return; // it was cut
          this.#turn = this.#gateway._turn;
          if (done) {
            this.#finish("upgraded");
            return controller.close();
          }
          this.#bytesOut += value.length;
          controller.enqueue(value);
        } catch (error) {
          this.#finish("cut");
          throw error;
        }
      },
      cancel: async (reason) => {
        this.#finish("client-gone");
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
    if (this.#gaveUp !== undefined) this.#cut?.(new HtxError("CANCELLED", "Answer was cut"));
    return new Response(content, { status: response.status, headers: response.headers });
  }

  /** A short answer of the gateway's own, before anything went upstream. */
  refuse(status: number, outcome: Outcome, why: string, again = false): Response {
    this.#status = status;
    this.#headAt = performance.now();
    this.#finish(outcome);
    return plain(status, why, this.id, again, this.setCookie, status === 413 || status === 400);
  }

  /** The answer to a request that failed on its way. */
  failed(error: unknown): Response {
    const [status, outcome, why] = this.#judge(error);
    this.#status = status;
    this.#headAt = performance.now();
    this.#stream = undefined;
    this.#finish(outcome);
    this.#gateway._log.warn("{method} {path} failed with {status}: {reason}", {
      id: this.id,
      method: this.parsed.method,
      path: pathOf(this.target),
      status,
      reason: messageOf(error),
      upstream: this.upstream?.id,
    });
    return plain(status, why, this.id, status === 503, this.setCookie);
  }

  #judge(error: unknown): [number, Outcome, string] {
    switch (this.#gaveUp) {
      case "slow":
        return [504, "upstream-slow", "the upstream took too long"];
      case "client-gone":
        return [499, "client-gone", "the client has gone"];
      case "too-large":
        return [413, "too-large", "the body is too large"];
      case "stopping":
        return [503, "stopping", "the gateway is shutting down"];
      case "moved":
        return [502, "upstream-down", "the upstream cannot be reached"];
    }
    if (error instanceof TypeError) return [400, "bad-request", "the request cannot be carried"];
    if (!(error instanceof HtxError)) return [502, "client-gone", "the request's body broke off"];
    switch (error.code) {
      case "REFUSED":
      case "STREAM_LIMIT":
      case "GOING_AWAY":
      case "EXCESSIVE_LOAD":
      case "HANDSHAKE_FAILED":
        return [503, "upstream-refused", "the upstream refused the request"];
      case "TIMEOUT":
        return [504, "upstream-slow", "the upstream took too long"];
      case "MALFORMED":
      case "PROTOCOL_ERROR":
      case "LIMIT_EXCEEDED":
        return [502, "upstream-malformed", "the upstream's answer was not understood"];
      default:
        return [502, "upstream-down", "the upstream cannot be reached"];
    }
  }

  #watch(): void {
    this.#watching = true;
    const { signal } = this.request;
    if (signal.aborted) this.giveUp("client-gone");
    else signal.addEventListener("abort", this.#onClientGone);
  }

  #unwatch(): void {
    if (!this.#watching) return;
    this.request.signal.removeEventListener("abort", this.#onClientGone);
  }

  #finish(outcome: Outcome): void {
    if (this.#over) return;
    this.#over = true;
    this.#unwatch();
    this.#gateway._left(this);
    const { metrics } = this.#gateway;
    metrics.bytesIn += this.#bytesIn;
    metrics.bytesOut += this.#bytesOut;
    metrics.done(outcome, this.#headAt - this.#started);
    this.#span?.end(this.#status, outcome);
    this.log(outcome, this.#status);
  }

  log(outcome: Outcome, status: number): void {
    const log = this.#gateway._log;
    if (!log.isEnabledFor("info")) return;
    const now = performance.now();
    log.info(
      "{method} {path} {status} bytes={bytes} gateway time_ms={time_ms} upstream time_ms={upstream_time_ms}",
      {
        id: this.id,
        method: this.parsed.method,
        path: pathOf(this.target),
        status,
        bytes: this.#bytesOut,
        time_ms: round(now - this.#started),
        upstream_time_ms: this.#sentAt === 0 ? 0 : round((this.#headAt || now) - this.#sentAt),
        outcome,
        upstream: this.upstream?.id,
      },
    );
  }
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}

function plain(
  status: number,
  why: string,
  id: string,
  again = false,
  setCookie?: string,
  close = false,
): Response {
  const headers: [string, string][] = [
    ["content-type", "text/plain; charset=utf-8"],
    ["cache-control", "no-store"],
    ["x-request-id", id],
  ];
  if (again) headers.push(["retry-after", RETRY_AFTER_SECONDS]);
  if (setCookie !== undefined) headers.push(["set-cookie", setCookie]);
  if (close) headers.push(["connection", "close"]);
  return new Response(`${status} ${REASONS[status] ?? "Error"}: ${why}\n`, { status, headers });
}

/** What went wrong, in a line. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Milliseconds for a log. */
export function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}

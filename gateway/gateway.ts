/**
 * {@linkcode Gateway}: HTTP in, HTX out. A fetch handler that stands behind any {@linkcode HttpFront}.
 *
 *     request ─► parse ─► admission ─┬─► limits ─► upstream session ─► response, streamed
 *                                    └─► decoy
 *
 * @module
 */

import { getLogger, type Logger } from "@logtape/logtape";
import { within } from "../core/_deferred.ts";
import { type HtxConnection, HtxError, type HtxStream } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import {
  exchangeOverStream,
  type HttpBody,
  type HttpRequestHead,
  type HttpRequestParts,
  type HttpResponse,
} from "../transport/mod.ts";
import { Admission, type AdmissionOutcome, type TicketAdmissionOptions } from "./admission.ts";
import { answerDecoy, fixedDecoy } from "./decoy.ts";
import { appendForwarding, type ClientFacts, type ForwardingOptions, ForwardingPolicy } from "./forwarded.ts";
import type { FrontHandler, FrontInfo } from "./front.ts";
import { offerToLend } from "./_lending.ts";
import { type GatewayLimits, resolveGatewayLimits } from "./limits.ts";
import { GatewayMetrics, type Outcome } from "./metrics.ts";
import { type ParsedRequest, parseRequest, pathOf } from "./request.ts";
import { type GatewaySpan, observe, Tracing } from "./tracing.ts";
import {
  REDIAL_MS,
  type SessionOptions,
  type Upstream,
  type UpstreamEndpoint,
  UpstreamPool,
  type UpstreamStatus,
} from "./upstreams.ts";

/** Options of {@linkcode createGateway}. */
export interface GatewayOptions {
  /** Where requests go: one upstream, or up to three, of which the one with least loss, then the nearest, is used. */
  upstream: UpstreamEndpoint | readonly UpstreamEndpoint[];
  /** Who the gateway is to its upstreams. @default {a fresh key pair} */
  keyPair?: KeyPair | undefined;
  /** Lets in who has a ticket, and nobody else. @default {everyone is let in} */
  admission?: TicketAdmissionOptions | undefined;
  /** Answers whoever is not let in; see `decoy.ts`. @default {fixedDecoy()} */
  decoy?: FrontHandler | undefined;
  /** Proxies in front of this gateway. @default {none is trusted} */
  forwarding?: ForwardingOptions | undefined;
  /** Bounds. @default {DEFAULT_GATEWAY_LIMITS} */
  limits?: GatewayLimits | undefined;
  /** The sessions to the upstreams. */
  sessions?: Omit<SessionOptions, "keyPair"> | undefined;
  /** Connects and probes at once, rather than with the first request. @default {true with more than one upstream} */
  warm?: boolean | undefined;
  /**
   * Takes requests for a WebSocket, once they are let in. `undefined` is as if there were no such hook.
   *
   * @default {they are answered 501}
   */
  onUpgrade?: ((upgrade: UpgradeContext) => Response | undefined | Promise<Response | undefined>) | undefined;
  /**
   * Looks at every request before admission, and answers it in the gateway's place: for an endpoint hidden behind the
   * decoy. `undefined` lets it go on.
   *
   * @default {none}
   */
  intercept?:
    | ((request: Request, info: FrontInfo) => Response | undefined | Promise<Response | undefined>)
    | undefined;
}

/** A request for a WebSocket that was let in. */
export interface UpgradeContext {
  /** The request; give it to `info.upgradeWebSocket`. */
  readonly request: Request;
  /** What the front knows. */
  readonly info: FrontInfo;
  /** The head to send upstream with `connectOverStream`: CONNECT with `upgrade: websocket` (HTX 1.1 §5). */
  readonly head: HttpRequestHead;
  /** Who the client is. */
  readonly client: ClientFacts;
  /** The request's id. */
  readonly id: string;
  /** Whether this is the path that `path` names, for endpoints of the gateway's own. */
  readonly path: string;
  /** A `set-cookie` line that the response has to carry, after admission by a ticket. */
  readonly setCookie: string | undefined;
  /** Aborts when the handshake is given up: it took too long, its client has gone, or the gateway stops. */
  readonly signal: AbortSignal;
  /** Opens a stream to an upstream. It is reset when the handshake is given up. */
  open(options?: { signal?: AbortSignal | undefined }): Promise<HtxStream>;
  /**
   * Counts the connection as running until the returned function is called; `cut` is called when the gateway stops. The
   * handshake is over with it: no time limit holds any more.
   */
  hold(cut: () => void): () => void;
}

/** What a gateway tells of itself. */
export interface GatewayStats {
  /** Counters. */
  readonly metrics: GatewayMetrics;
  /** The upstreams. */
  readonly upstreams: readonly UpstreamStatus[];
  /** Whether requests can be served, as far as is known. */
  readonly ready: boolean;
  /** Whether it is shutting down. */
  readonly stopping: boolean;
}

/** How long what was cut may take to let go, in ms. */
const CUT_GRACE_MS = 1000;
/** How often running requests are looked at, in ms: with one upstream, and where there is another to move to. */
const SWEEP_MS = 50;
const SWEEP_SEVERAL_MS = 20;
/**
 * Age of a request, in ms, from which on it is watched whether its client has gone. Deno prints a warning about its signals
 * with the first answer to a request whose signal was looked at: short requests shall not cause it.
 */
const CLIENT_WATCH_MS = 500;
/** How often it is tried again to send a request that no application has seen. */
const MAX_RETRIES = 3;
/** Up to this length a body goes upstream without being watched. */
const DIRECT_BODY_BYTES = 65_536;
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

/**
 * Makes a gateway. It listens nowhere: give its `handler` to a front.
 *
 * @example A gateway over an application in the same process
 * ```ts
 * import { createGateway, denoFront, localUpstream } from "@betanet/htx/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * await using upstream = localUpstream((request) => new Response(`you asked for ${new URL(request.url).pathname}`));
 * await using gateway = createGateway({ upstream });
 * await using front = denoFront(gateway.handler, { port: 0 });
 *
 * const response = await fetch(`http://127.0.0.1:${front.addr.port}/tea`);
 * assertEquals(await response.text(), "you asked for /tea");
 * ```
 *
 * @throws {TypeError} when there is no upstream, a key is no key, or an upstream has the gateway's own key
 * @throws {RangeError} when there are more than three upstreams, or a limit is out of its range
 */
export function createGateway(options: GatewayOptions): Gateway {
  return new Gateway(options);
}

/** A gateway: see {@linkcode createGateway}. `await using` closes it. */
export class Gateway implements AsyncDisposable {
  /** Answers a request. Never rejects. */
  readonly handler: FrontHandler;
  /** Who the gateway is to its upstreams: its public key. */
  readonly publicKeyHex: string;
  /** Counters. */
  readonly metrics: GatewayMetrics = new GatewayMetrics();

  /** @internal */ readonly _pool: UpstreamPool;
  /** @internal */ readonly _running: Set<Exchange> = new Set();
  /** @internal */ _limits: ReturnType<typeof resolveGatewayLimits>;
  /** @internal */ readonly _tracing: Tracing = new Tracing("@betanet/htx/gateway");
  /** @internal */ readonly _log: Logger = getLogger(["htx", "gateway"]);
  /** @internal Grows by one with each sweep: the clock of what only needs to be noticed soon. */ _turn = 0;

  #admission: Admission | undefined;
  #decoy: FrontHandler;
  #forwarding: ForwardingPolicy;
  readonly #onUpgrade: GatewayOptions["onUpgrade"];
  readonly #intercept: GatewayOptions["intercept"];
  readonly #held: Set<() => void> = new Set();
  readonly #idPrefix: string;
  readonly #unobserve: () => void;
  #nextId = 0;
  #sweeper: ReturnType<typeof setTimeout> | undefined;
  #stopping = false;
  #idle: PromiseWithResolvers<void> | undefined;

  /** See {@linkcode createGateway}. */
  constructor(options: GatewayOptions) {
    const { upstream, keyPair = KeyPair.generate() } = options;
    const targets = Array.isArray(upstream)
      ? upstream as readonly UpstreamEndpoint[]
      : [upstream as UpstreamEndpoint];
    this._limits = resolveGatewayLimits(options.limits);
    this.#forwarding = new ForwardingPolicy(options.forwarding);
    this.#decoy = options.decoy ?? fixedDecoy();
    this.#onUpgrade = options.onUpgrade;
    this.#intercept = options.intercept;
    this.#admission = options.admission && new Admission(options.admission, this.metrics);
    this.publicKeyHex = keyPair.publicKeyHex;
    this.#idPrefix = Array.from(
      crypto.getRandomValues(new Uint8Array(5)),
      (byte) => byte.toString(16).padStart(2, "0"),
    ).join("");
    this._pool = new UpstreamPool(targets, { ...options.sessions, keyPair }, {
      onSwitch: (change) => {
        if (change.from === undefined) return;
        this.metrics.switches++;
        this._log.warn("Traffic moved from {from} to {to}: {reason}", {
          from: change.from,
          to: change.to ?? "nowhere",
          reason: change.reason,
        });
      },
      onSession: (one, connection) => {
        this._log.debug("Session with {upstream} {state}", {
          upstream: one.id,
          state: connection.closing ? "ended" : "made",
          hybrid: connection.handshake.hybrid,
        });
      },
      onFailure: (one, error) => {
        this._log.warn("Upstream {upstream} failed: {reason}", {
          upstream: one.id,
          reason: messageOf(error),
        });
      },
      onPathFailed: (one) => this.#abandon(one),
    });
    this.#unobserve = observe("@betanet/htx/gateway", this.metrics);
    this.handler = (request, info) => this.#handle(request, info);
    if (options.warm ?? this._pool.several) this._pool.start();
  }

  /** Counters and states, now. */
  get stats(): GatewayStats {
    return {
      metrics: this.metrics,
      upstreams: this._pool.status(),
      ready: this._pool.ready && !this.#stopping,
      stopping: this.#stopping,
    };
  }

  /** Whether tickets are asked for. */
  get guarded(): boolean {
    return this.#admission !== undefined;
  }

  /**
   * Replaces limits, decoy and admission while requests run: each keeps those it began with. A change of admission
   * keeps the memory of spent tickets if it is given the same stores.
   *
   * @throws as the constructor does; the old ones stay then
   */
  reload(change: Partial<Pick<GatewayOptions, "limits" | "decoy" | "admission" | "forwarding">>): void {
    const limits = "limits" in change ? resolveGatewayLimits(change.limits) : this._limits;
    const forwarding = "forwarding" in change ? new ForwardingPolicy(change.forwarding) : this.#forwarding;
    const admission = "admission" in change
      ? change.admission && new Admission(change.admission, this.metrics)
      : this.#admission;
    this._limits = limits;
    this.#forwarding = forwarding;
    this.#admission = admission;
    if (change.decoy !== undefined) this.#decoy = change.decoy;
  }

  /**
   * Refuses new requests with 503, lets running ones finish, then ends the sessions. Past `graceMs` what still runs is
   * cut, so that clients see an error. Stop the front first.
   */
  async shutdown(options: { graceMs?: number } = {}): Promise<void> {
    this.#stopping = true;
    await this.#quiet(options.graceMs);
    await this.close();
  }

  /** Waits until nothing runs any more, no longer than `graceMs`. */
  async #quiet(graceMs: number | undefined): Promise<void> {
    if (this.#busy === 0) return;
    const idle = this.#idle ??= Promise.withResolvers<void>();
    await (graceMs === undefined ? idle.promise : within(idle.promise, graceMs));
  }

  /** Ends everything at once. */
  async close(): Promise<void> {
    this.#stopping = true;
    this.#unobserve();
    clearTimeout(this.#sweeper);
    this.#sweeper = undefined;
    for (const exchange of [...this._running]) exchange.giveUp("stopping");
    for (const cut of [...this.#held]) cut();
    // What was cut lets go of what it holds before the sessions below it end; whoever does not is left behind.
    await this.#quiet(CUT_GRACE_MS);
    await this._pool.close();
    clearTimeout(this.#sweeper);
    this.#sweeper = undefined;
  }

  /** Closes, and waits for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // ------------------------------------------------------------------ one request

  #handle(request: Request, info: FrontInfo): Response | Promise<Response> {
    if (this.#intercept !== undefined) return this.#afterIntercept(request, info, this.#intercept);
    return this.#admit(request, info);
  }

  async #afterIntercept(
    request: Request,
    info: FrontInfo,
    intercept: NonNullable<GatewayOptions["intercept"]>,
  ): Promise<Response> {
    const started = performance.now();
    let response: Response | undefined;
    try {
      response = await intercept(request, info);
    } catch (error) {
      this._log.error("Intercepting failed: {reason}", { reason: messageOf(error) });
      const decoy = await answerDecoy(this.#decoy, request, info, undefined);
      this.metrics.done("decoy", performance.now() - started);
      return decoy;
    }
    return response ?? await this.#admit(request, info);
  }

  #admit(request: Request, info: FrontInfo): Response | Promise<Response> {
    const started = performance.now();
    const parsed = parseRequest(request, info, this._limits.headerBytes);
    if (this.#admission === undefined) return this.#admitted(request, info, parsed, started, undefined);
    return this.#guarded(request, info, parsed, started, this.#admission);
  }

  async #guarded(
    request: Request,
    info: FrontInfo,
    parsed: ParsedRequest,
    started: number,
    admission: Admission,
  ): Promise<Response> {
    const decoy = this.#decoy;
    let outcome: AdmissionOutcome;
    try {
      const facts = this.#facts(parsed, info);
      outcome = await admission.judge(request, parsed, facts);
    } catch (error) {
      this._log.error("Admission failed: {reason}", { reason: messageOf(error) });
      outcome = { admitted: false, reason: "store-failed", body: undefined };
    }
    if (outcome.admitted) return this.#admitted(request, info, parsed, started, outcome);
    const response = await answerDecoy(decoy, request, info, outcome.body);
    const ms = performance.now() - started;
    this.metrics.done("decoy", ms);
    if (this._log.isEnabledFor("info")) {
      this._log.info("{method} {path} {status} decoy ({reason}) gateway time_ms={time_ms}", {
        method: parsed.method,
        path: pathOf(parsed.path),
        status: response.status,
        reason: outcome.reason,
        time_ms: round(ms),
      });
    }
    return response;
  }

  #facts(parsed: ParsedRequest, info: FrontInfo): ClientFacts {
    return this.#forwarding.facts(
      info.remoteAddr?.hostname,
      info.encrypted,
      parsed.authority,
      parsed.forwarding,
    );
  }

  #admitted(
    request: Request,
    info: FrontInfo,
    parsed: ParsedRequest,
    started: number,
    admitted: (AdmissionOutcome & { admitted: true }) | undefined,
  ): Response | Promise<Response> {
    const facts = this.#facts(parsed, info);
    const trusted = facts.chain.length > 1 ||
      (this.#forwarding.trusting && this.#forwarding.isTrusted(facts.chain[0]!));
    const id = trusted && parsed.requestId !== undefined && /^[\x21-\x7e]{1,128}$/.test(parsed.requestId)
      ? parsed.requestId
      : `${this.#idPrefix}${(this.#nextId++).toString(36)}`;
    const exchange = new Exchange(this, request, info, parsed, facts, id, started, admitted);
    const { fault } = parsed;
    const limits = this._limits;
    if (this.#stopping) return exchange.refuse(503, "stopping", "the gateway is shutting down", true);
    if (fault !== undefined) return exchange.refuse(fault.status, "bad-request", fault.why);
    const announced = parsed.contentLength === undefined ? 0 : Number(parsed.contentLength);
    if (limits.bodyBytes > 0 && announced > limits.bodyBytes) {
      return exchange.refuse(413, "too-large", "the body is too large");
    }
    if (this.#busy >= limits.concurrentRequests) {
      return exchange.refuse(503, "overloaded", "too many requests at once", true);
    }
    if (parsed.webSocket) return this.#upgrade(exchange);
    return exchange.run();
  }

  async #upgrade(exchange: Exchange): Promise<Response> {
    const { request, info, parsed, facts, id } = exchange;
    const hook = this.#onUpgrade;
    if (hook === undefined) return exchange.refuse(501, "bad-request", "WebSocket is not offered here");
    const fields = exchange.fields();
    fields.push(["upgrade", "websocket"]);
    let response: Response | undefined;
    try {
      response = await exchange.handshake((signal) =>
        hook({
          request,
          info,
          head: {
            method: "CONNECT",
            scheme: facts.scheme,
            authority: parsed.authority,
            path: exchange.target,
            fields: fields.filter(([name]) =>
              name !== "sec-websocket-key" && name !== "sec-websocket-extensions" &&
              name !== "sec-websocket-accept"
            ),
          },
          client: facts,
          id,
          path: exchange.target,
          setCookie: exchange.setCookie,
          signal,
          open: async (options = {}) => {
            const either = options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
            const upstream = exchange.upstream = this._pool.pick();
            const stream = await this._pool.open(upstream, either);
            const reset = () => stream.reset("CANCELLED", "given up");
            if (signal.aborted) reset();
            else signal.addEventListener("abort", reset, { once: true });
            return stream;
          },
          hold: (cut) => {
            if (signal.aborted) {
              cut();
              return () => {};
            }
            this.#held.add(cut);
            exchange.established();
            return () => {
              this.#held.delete(cut);
              this._left();
            };
          },
        })
      );
    } catch (error) {
      return exchange.failed(error);
    }
    if (response === undefined) return exchange.refuse(501, "bad-request", "WebSocket is not offered here");
    exchange.upgraded(response.status);
    return response;
  }

  // ------------------------------------------------------------------ what runs

  /** Requests on their way and WebSockets that are open. */
  get #busy(): number {
    return this._running.size + this.#held.size;
  }

  /** @internal */
  _entered(exchange: Exchange): void {
    this._running.add(exchange);
    this.metrics.active = this.#busy;
    if (this.#sweeper === undefined) this.#armSweep();
  }

  /** @internal */
  _left(exchange?: Exchange): void {
    if (exchange !== undefined) this._running.delete(exchange);
    this.metrics.active = this.#busy;
    if (this.#idle !== undefined && this.#busy === 0) this.#idle.resolve();
  }

  #armSweep(): void {
    this.#sweeper = setTimeout(() => this.#sweep(), this._pool.several ? SWEEP_SEVERAL_MS : SWEEP_MS);
  }

  /** Times and vanished clients: looked at for all requests together, so that a short one pays for no timer. */
  #sweep(): void {
    this.#sweeper = undefined;
    this._turn++;
    if (this._running.size === 0) return;
    const now = performance.now();
    for (const exchange of this._running) exchange.look(now);
    if (this._pool.several) {
      const waited = new Set<Upstream>();
      for (const exchange of this._running) {
        if (exchange.waiting && exchange.upstream !== undefined) waited.add(exchange.upstream);
      }
      for (const upstream of waited) this._pool.watch(upstream);
    }
    this.#armSweep();
  }

  /** A path failed: what waits for its answer and can be sent again moves. */
  #abandon(upstream: Upstream): void {
    if (!this._pool.several) return;
    for (const exchange of [...this._running]) {
      if (exchange.upstream === upstream && exchange.waiting && exchange.movable) exchange.giveUp("moved");
    }
  }
}

/** Why the gateway itself ended an exchange. */
type GiveUp = "client-gone" | "slow" | "moved" | "stopping" | "too-large";

/** One request on its way. */
class Exchange {
  readonly #gateway: Gateway;
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
  #stream: HtxStream | undefined;
  #connection: HtxConnection | undefined;
  #dialing: AbortController | undefined;
  #wake: (() => void) | undefined;
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
  #direct = false;
  /** What the stream had been given of a direct body at the last look. */
  #written = 0;
  readonly #onClientGone = () => this.giveUp("client-gone");

  constructor(
    gateway: Gateway,
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
    if (this.parsed.webSocket) return false; // its hook has the stream
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
    return await Promise.race([run(signal), givenUp]);
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
    const length = parsed.contentLength === undefined ? NaN : Number(parsed.contentLength);
    if (length <= DIRECT_BODY_BYTES && requestTrailers === undefined) {
      // Of a length that is known and allowed, and here in no time: nothing to watch on its way.
      this.#direct = true;
      this.#bytesIn = length;
      return { ...head, body, bodyGiven: true };
    }
    return {
      ...head,
      body: this.#upload(body),
      bodyGiven: true,
      ...(requestTrailers !== undefined && { trailers: requestTrailers }),
    };
  }

  /** The request's body. Counted on its way, which also shows that an upload goes on. */
  #upload(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
    const limit = this.#limits.bodyBytes;
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        this.#bodyStarted = true;
        reader ??= body.getReader();
        const { value, done } = await reader.read();
        this.#turn = this.#gateway._turn;
        if (done) return controller.close();
        this.#bytesIn += value.length;
        if (limit > 0 && this.#bytesIn > limit) {
          this.giveUp("too-large");
          throw new HtxError("LIMIT_EXCEEDED", "Cannot forward request: its body is too large");
        }
        controller.enqueue(value);
      },
      cancel: async (reason) => {
        // Whoever has the lock ends the reading; without one the front discards the body itself.
        await (reader?.cancel(reason) ?? body.cancel(reason)).catch(() => {});
      },
    }, { highWaterMark: 0 });
  }

  async #exchange(upstream: Upstream, parts: HttpRequestParts): Promise<HttpResponse> {
    const pool = this.#gateway._pool;
    this.#dialing = undefined; // an earlier attempt's may be aborted
    let connection = upstream.ready;
    if (connection === undefined) {
      this.#dialing = new AbortController();
      if (this.#gaveUp !== undefined) this.#dialing.abort();
      connection = await pool.connect(upstream, this.#dialing.signal);
    }
    const stream = this.#dialing === undefined
      ? await connection.createBidirectionalStream()
      : await connection.createBidirectionalStream({ signal: this.#dialing.signal });
    this.#dialing = undefined;
    if (this.#gaveUp !== undefined) {
      stream.reset("CANCELLED");
      throw new HtxError("CANCELLED", "Request was given up");
    }
    this.#stream = stream;
    this.#connection = connection;
    if (this.#direct) this.#bodyStarted = true;
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
    if (this.#direct) {
      const written = this.#stream?.bytesPut ?? 0;
      if (written !== this.#written) this.#progressAt = now; // more of the body came
      this.#written = written;
    }
    const limits = this.#limits;
    if (limits.requestTimeoutMs > 0 && now - this.#started >= limits.requestTimeoutMs) {
      return this.giveUp("slow");
    }
    if (this.waiting) {
      if (limits.responseTimeoutMs > 0 && now - this.#progressAt >= limits.responseTimeoutMs) {
        return this.giveUp("slow");
      }
      if (!this.#watching && now - this.#started >= CLIENT_WATCH_MS) {
        this.#watching = true;
        const { signal } = this.request;
        if (signal.aborted) this.giveUp("client-gone");
        else signal.addEventListener("abort", this.#onClientGone);
      }
    } else if (limits.idleTimeoutMs > 0 && now - this.#progressAt >= limits.idleTimeoutMs) {
      this.giveUp("slow");
    }
  }

  giveUp(why: GiveUp): void {
    if (this.#over || this.#gaveUp !== undefined) return;
    this.#gaveUp = why;
    this.#dialing?.abort();
    this.#wake?.();
    this.#stream?.reset(why === "slow" ? "TIMEOUT" : "CANCELLED");
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
    const headers: [string, string][] = [];
    for (const field of received.fields) {
      if (setTrailers === undefined && field[0] === "trailer") continue;
      if (status === 205 && field[0] === "content-length") continue; // RFC 9110 §15.3.6: there is no content
      headers.push(field as [string, string]);
    }
    const { setCookie } = this;
    if (setCookie !== undefined) headers.push(["set-cookie", setCookie]);
    const bodiless = status === 204 || status === 205 || status === 304 || this.parsed.method === "HEAD";
    const { complete } = body;
    let content: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null;
    if (bodiless) {
      if (!body.ended) body.cancel();
      content = null;
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
      if (content instanceof ReadableStream) offerToLend(response, content, body);
      return response;
    } catch (error) {
      body.cancel();
      this.#finish("upstream-malformed");
      this.#gateway._log.warn("Answer to {id} cannot be carried: {reason}", {
        id: this.id,
        reason: messageOf(error),
      });
      return plain(502, "the upstream's answer cannot be carried", this.id);
    }
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
    const fail = (error: unknown): never => {
      this.#finish(this.#gaveUp === "client-gone" ? "client-gone" : "cut");
      throw error;
    };
    return new ReadableStream<Uint8Array>({
      pull: (controller): Promise<void> | void => {
        let data: Uint8Array | null | undefined;
        try {
          data = body.tryRead();
        } catch (error) {
          fail(error);
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

  /** Counts a request that a hook took over. */
  upgraded(status: number): void {
    this.#status = status;
    this.#headAt = performance.now();
    this.#finish("upgraded");
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}

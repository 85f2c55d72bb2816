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
import { IdMap } from "../core/_id_map.ts";
import type { HtxStream } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import type { HttpRequestHead } from "../transport/mod.ts";
import { Admission, type AdmissionOutcome, type TicketAdmissionOptions } from "./admission.ts";
import { answerDecoy, fixedDecoy } from "./decoy.ts";
import { Exchange, messageOf, round } from "./exchange.ts";
import { type ClientFacts, type ForwardingOptions, ForwardingPolicy } from "./forwarded.ts";
import type { FrontHandler, FrontInfo } from "./front.ts";
import { type GatewayLimits, resolveGatewayLimits } from "./limits.ts";
import { GatewayMetrics } from "./metrics.ts";
import { type ParsedRequest, parseRequest, pathOf } from "./request.ts";
import { observe, Tracing } from "./tracing.ts";
import {
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
  /** Opens a stream to an upstream that can be reached. It is reset when the handshake is given up. */
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
  /** @internal */ readonly _running: IdMap<Exchange> = new IdMap();
  #entered = 0;
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
    if (upstream === undefined) throw new TypeError("Cannot make gateway: it has no upstream");
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
   * Refuses new requests with 503, lets running ones finish, then ends the sessions. Past `graceMs` (in ms; without it
   * there is no bound) what still runs is cut, so that clients see an error. Stop the front first.
   */
  async shutdown(options: { graceMs?: number | undefined } = {}): Promise<void> {
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
    for (const exchange of this._running.values()) exchange.giveUp("stopping");
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
            const stream = await exchange.openStream(either);
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
    return exchange.upgraded(response);
  }

  // ------------------------------------------------------------------ what runs

  /** Requests on their way and WebSockets that are open. */
  get #busy(): number {
    return this._running.size + this.#held.size;
  }

  /** @internal */
  _entered(exchange: Exchange): void {
    exchange._number = ++this.#entered;
    this._running.set(exchange._number, exchange);
    this.metrics.active = this.#busy;
    if (this.#sweeper === undefined) this.#armSweep();
  }

  /** @internal */
  _left(exchange?: Exchange): void {
    if (exchange !== undefined) this._running.delete(exchange._number);
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
    const waitedFor = this._pool.several ? new Set<Upstream>() : undefined;
    for (const exchange of this._running.values()) {
      exchange.look(now);
      if (exchange.waiting && exchange.upstream !== undefined) waitedFor?.add(exchange.upstream);
    }
    for (const upstream of waitedFor ?? []) this._pool.watch(upstream);
    this.#armSweep();
  }

  /** A path failed: what waits for its answer and can be sent again moves, in the order in which it came. */
  #abandon(upstream: Upstream): void {
    if (!this._pool.several) return;
    for (const exchange of this._running.values().sort((a, b) => a._number - b._number)) {
      if (exchange.upstream === upstream && exchange.waiting && exchange.movable) exchange.giveUp("moved");
    }
  }
}

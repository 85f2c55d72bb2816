/**
 * Up to three upstream endpoints: sessions to each, which one to use, when to move. The rules are those of
 * `overlay/paths.ts`; this is what they are applied to.
 *
 * @module
 */

import { timerDelay } from "../core/_timer_delay.ts";
import { type HtxConnection, HtxError, type HtxStream, timingSafeEqual, toHex } from "../core/mod.ts";
import { type KeyPair, publicKeyFromHex } from "../noise/mod.ts";
import { MAX_PATHS, PathSet, type PathState, type PathSwitch } from "../overlay/paths.ts";
import { type ConnectOptions, type Dialer, HtxClient, REDIAL_MS } from "../transport/mod.ts";

/** Where an upstream is and who it is. */
export interface UpstreamEndpoint {
  /** Host name or IP address. @default {"127.0.0.1"} */
  hostname?: string | undefined;
  /** Port; needed unless `dial` is given. */
  port?: number | undefined;
  /** Opens the carrier in place of TCP. @default {TCP to `hostname` and `port`} */
  dial?: Dialer | undefined;
  /** The upstream's static public key, pinned: 32 bytes, or 64 hexadecimal digits. */
  publicKey: Uint8Array | string;
  /** Name for logs and metrics. @default {"hostname:port"} */
  name?: string | undefined;
}

/** Options of the sessions to upstreams. */
export interface SessionOptions
  extends
    Omit<ConnectOptions, "remoteStatic" | "signal" | "onConnection" | "maxConnections" | "maxLocalStreams"> {
  /** Streams, which is requests, per session at once; past that another session is opened, or they wait. @default {256} */
  streamsPerSession?: number | undefined;
  /** Sessions to each upstream at most. @default {4} */
  maxSessions?: number | undefined;
  /** Milliseconds that connecting and the handshake may take. @default {5000} */
  connectTimeoutMs?: number | undefined;
}

/** What the pool tells of itself. */
export interface UpstreamEvents {
  /** Traffic moved, or there is nowhere to go. */
  onSwitch?: (change: PathSwitch) => void;
  /** A session was made, or ended. */
  onSession?: (upstream: Upstream, connection: HtxConnection) => void;
  /** Dialing or the handshake failed. */
  onFailure?: (upstream: Upstream, error: unknown) => void;
  /** Requests that wait on a path that failed have to be moved. */
  onPathFailed?: (upstream: Upstream) => void;
}

/** Counters of ended and live sessions together. */
export interface UpstreamCounters {
  /** Sessions open now. */
  sessions: number;
  /** Sessions made. */
  connected: number;
  /** Dials and handshakes that failed. */
  failed: number;
  /** Handshakes that failed. */
  handshakeFailures: number;
  /** Streams open now. */
  streams: number;
  /** Streams opened. */
  streamsOpened: number;
  /** Bytes of frames sent. */
  bytesSent: number;
  /** Bytes of frames received. */
  bytesReceived: number;
  /** Key updates in both directions. */
  rekeys: number;
}

/** Without an answer for so long, a path with an alternative is left: leaves 50 ms of the 300 for noticing. */
const STALL_MS = 200;
/** Traffic does not move for a gain of less than this. */
const RTT_MARGIN_MS = 5;

/** One upstream endpoint. */
export class Upstream {
  readonly id: string;
  readonly client: HtxClient;
  /** The least busy session with room, as last seen. */
  #last: HtxConnection | undefined;
  readonly #counters: UpstreamCounters = zero();
  /** Frames received when last looked at, to notice silence. */
  heardFrames = -1;
  pinging = false;
  lastFailure = -Infinity;
  lastError: unknown;

  constructor(id: string, target: UpstreamEndpoint, options: SessionOptions, events: UpstreamEvents) {
    this.id = id;
    const { streamsPerSession = 256, maxSessions = 4, connectTimeoutMs = 5_000, ...rest } = options;
    const { dial, hostname = "127.0.0.1", port } = target;
    if (dial === undefined && port === undefined) {
      throw new TypeError(`Cannot use upstream ${target.name ?? hostname}: it has neither a port nor a dial`);
    }
    const remoteStatic = typeof target.publicKey === "string"
      ? publicKeyFromHex(target.publicKey)
      : target.publicKey;
    this.client = new HtxClient(dial ?? { hostname, port: port! }, {
      handshakeTimeoutMs: connectTimeoutMs,
      ...rest,
      remoteStatic,
      maxConnections: maxSessions,
      maxLocalStreams: streamsPerSession,
      onConnection: (connection) => {
        this.lastError = undefined;
        this.lastFailure = -Infinity;
        events.onSession?.(this, connection);
        connection.closed.catch((error) => {
          this.lastError = error;
          if (error instanceof HtxError && error.code === "HANDSHAKE_FAILED") {
            this.#counters.handshakeFailures++;
          }
        }).finally(() => {
          const { stats } = connection;
          this.#counters.streamsOpened += stats.streamsOpened;
          this.#counters.bytesSent += stats.bytesSent;
          this.#counters.bytesReceived += stats.bytesReceived;
          this.#counters.rekeys += stats.rekeysSent + stats.rekeysReceived;
          if (this.#last === connection) this.#last = undefined;
          events.onSession?.(this, connection);
        });
      },
    });
  }

  /** A live session with room; no promise, for the common case. */
  get ready(): HtxConnection | undefined {
    const last = this.#last;
    if (last !== undefined && !last.closing && !last.draining && last.openStreams < last.maxOpenStreams) {
      return last;
    }
    let best: HtxConnection | undefined;
    for (const connection of this.client.connections) {
      if (connection.closing || connection.draining) continue;
      if (connection.openStreams >= connection.maxOpenStreams) continue;
      if (best === undefined || connection.openStreams < best.openStreams) best = connection;
    }
    return this.#last = best;
  }

  /** Counters. */
  get counters(): UpstreamCounters {
    const sum = { ...this.#counters };
    const { connections, connected, failed } = this.client.stats;
    sum.sessions = connections;
    sum.connected = connected;
    sum.failed = failed;
    for (const { stats } of this.client.connections) {
      sum.streams += stats.streams;
      sum.streamsOpened += stats.streamsOpened;
      sum.bytesSent += stats.bytesSent;
      sum.bytesReceived += stats.bytesReceived;
      sum.rekeys += stats.rekeysSent + stats.rekeysReceived;
    }
    return sum;
  }

  /** Counts a dial whose handshake failed. */
  noteFailure(error: unknown, now: number): void {
    this.lastError = error;
    this.lastFailure = now;
    if (error instanceof HtxError && error.code === "HANDSHAKE_FAILED") this.#counters.handshakeFailures++;
  }
}

function zero(): UpstreamCounters {
  return {
    sessions: 0,
    connected: 0,
    failed: 0,
    handshakeFailures: 0,
    streams: 0,
    streamsOpened: 0,
    bytesSent: 0,
    bytesReceived: 0,
    rekeys: 0,
  };
}

/** State of one upstream, for status pages. */
export interface UpstreamStatus extends Readonly<UpstreamCounters> {
  /** Its name. */
  readonly name: string;
  /** How far it can be relied on. */
  readonly state: PathState;
  /** Whether requests go there. */
  readonly active: boolean;
  /** Smoothed round-trip time in ms. */
  readonly rttMs: number | undefined;
}

/** The upstreams of a gateway. */
export class UpstreamPool {
  readonly #upstreams: ReadonlyMap<string, Upstream>;
  readonly #list: readonly Upstream[];
  readonly #paths: PathSet;
  readonly #events: UpstreamEvents;
  readonly #states = new Map<string, PathState>();
  #active: Upstream | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Infinity;
  #closed = false;

  /**
   * @throws {TypeError} when there is no endpoint, one is misdescribed, or one is this gateway itself
   * @throws {RangeError} when there are more than three
   */
  constructor(targets: readonly UpstreamEndpoint[], options: SessionOptions, events: UpstreamEvents) {
    if (targets.length === 0) throw new TypeError("Cannot make gateway: it has no upstream");
    if (targets.length > MAX_PATHS) {
      throw new RangeError(`Cannot make gateway: it has ${targets.length} upstreams, at most ${MAX_PATHS}`);
    }
    this.#events = events;
    this.#paths = new PathSet({ stallMs: STALL_MS, rttMarginMs: RTT_MARGIN_MS });
    const upstreams = new Map<string, Upstream>();
    for (const target of targets) {
      const key = typeof target.publicKey === "string"
        ? publicKeyFromHex(target.publicKey)
        : target.publicKey;
      if (options.keyPair !== undefined) refuseSelf(options.keyPair, key);
      let id = target.name ??
        (target.port === undefined
          ? target.hostname ?? "in-process"
          : `${target.hostname ?? "127.0.0.1"}:${target.port}`);
      while (upstreams.has(id)) id = `${id}+`;
      upstreams.set(
        id,
        new Upstream(id, { ...target, publicKey: key }, options, {
          ...events,
          onSession: (upstream, connection) => {
            if (!connection.closing) this.#worked(upstream);
            events.onSession?.(upstream, connection);
          },
        }),
      );
    }
    this.#upstreams = upstreams;
    this.#list = [...upstreams.values()];
    const now = performance.now();
    for (const id of upstreams.keys()) {
      this.#paths.add({ id }, now);
      this.#states.set(id, "unvalidated");
    }
    this.#active = this.#list[0];
  }

  /** Whether there is more than one endpoint. */
  get several(): boolean {
    return this.#list.length > 1;
  }

  /** All upstreams. */
  get upstreams(): readonly Upstream[] {
    return this.#list;
  }

  /** Whether a request could be sent now, as far as is known. */
  get ready(): boolean {
    return this.#paths.active !== undefined;
  }

  /** Begins to probe: sessions are made before the first request needs one. */
  start(): void {
    this.#probe();
  }

  /** Where to send; not to one of `tried` unless that is all there is. */
  pick(tried?: ReadonlySet<Upstream>): Upstream {
    const active = this.#active;
    if (active !== undefined && (tried === undefined || !tried.has(active)) && this.ready) return active;
    for (const id of this.#paths.candidates()) {
      const upstream = this.#upstreams.get(id)!;
      if (!tried?.has(upstream)) return upstream;
    }
    // None is known to work. The one that failed longest ago may be back.
    const untried = this.#list.filter((upstream) => !tried?.has(upstream));
    const rest = untried.length > 0 ? untried : this.#list;
    return rest.reduce((best, upstream) => upstream.lastFailure < best.lastFailure ? upstream : best);
  }

  /**
   * Opens a stream, on a further session if those that are there have no room; waits for a place once there may be no
   * more. While an upstream is down, requests do not dial more than ten times a second.
   */
  async open(
    upstream: Upstream,
    signal: AbortSignal | undefined,
  ): Promise<{ connection: HtxConnection; stream: HtxStream }> {
    const since = performance.now() - upstream.lastFailure;
    if (since < REDIAL_MS && upstream.client.stats.connections === 0) {
      throw upstream.lastError ?? new HtxError("CONNECT_FAILED", "Cannot reach upstream");
    }
    try {
      return await upstream.client._open(signal);
    } catch (error) {
      if (!signal?.aborted) this.failed(upstream, error);
      throw error;
    }
  }

  /** Reports that an upstream could not be reached. */
  failed(upstream: Upstream, error: unknown): void {
    if (this.#closed) return;
    const now = performance.now();
    // All the requests that waited for one dial report its end: once is enough.
    const news = this.#states.get(upstream.id) !== "failed" || now - upstream.lastFailure >= REDIAL_MS;
    if (news) {
      upstream.noteFailure(error, now);
      this.#events.onFailure?.(upstream, error);
    }
    this.#left(upstream);
  }

  /** Reports that a session of an upstream broke: another may be made at once. */
  broke(upstream: Upstream, error: unknown): void {
    if (this.#closed) return;
    if (this.#states.get(upstream.id) !== "failed") this.#events.onFailure?.(upstream, error);
    this.#left(upstream);
  }

  #left(upstream: Upstream): void {
    this.#moved(this.#paths.failed(upstream.id, performance.now()));
    this.#note(upstream.id, "failed");
    this.#arm();
  }

  /** Reports that an upstream answered. */
  worked(upstream: Upstream, rtt?: number): void {
    if (rtt === undefined && this.#states.get(upstream.id) === "validated") return; // nothing new
    this.#worked(upstream, rtt);
  }

  #worked(upstream: Upstream, rtt?: number): void {
    if (this.#closed) return;
    this.#moved(this.#paths.succeeded(upstream.id, performance.now(), rtt === undefined ? {} : { rtt }));
    this.#note(upstream.id, "validated");
    this.#arm();
  }

  /**
   * Looks whether an upstream that requests wait for is still there: asks, once it has been silent since the last look.
   * Silence for {@linkcode STALL_MS} after that moves traffic away, and so does that of a dial.
   */
  watch(upstream: Upstream): void {
    if (upstream.pinging || !this.several) return;
    const connection = upstream.ready ?? firstOf(upstream.client.connections);
    if (connection === undefined || connection.closing) {
      // They wait for a dial, silent from its start. Where no other upstream works it has all its time.
      if (this.#paths.candidates().every((id) => id === upstream.id)) return;
      this.#paths.expect(upstream.id, performance.now());
      this.#arm();
      return;
    }
    const { framesReceived } = connection.stats;
    if (framesReceived !== upstream.heardFrames) {
      upstream.heardFrames = framesReceived;
      return;
    }
    this.#paths.expect(upstream.id, performance.now());
    this.#arm();
    this.#ping(upstream, connection);
  }

  /** State of all upstreams. */
  status(): UpstreamStatus[] {
    const { active } = this.#paths;
    return this.#paths.snapshot().map((path) => ({
      ...this.#upstreams.get(path.id)!.counters,
      name: path.id,
      state: path.state,
      active: path.id === active,
      rttMs: path.rtt,
    }));
  }

  /** Ends all sessions; `drain` lets open streams finish. */
  async close(options: { drain?: boolean } = {}): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await Promise.all(this.#list.map(async ({ client }) => {
      if (options.drain) return await client.drain();
      const ending = [...client.connections].map((connection) => connection.close({ code: "GOING_AWAY" }));
      await client.close();
      await Promise.all(ending);
    }));
  }

  async #ping(upstream: Upstream, connection: HtxConnection): Promise<void> {
    upstream.pinging = true;
    try {
      this.#worked(upstream, await measure(connection));
    } catch {
      // The session ended: that is noticed where its streams fail.
    } finally {
      upstream.pinging = false;
    }
  }

  async #probeOne(upstream: Upstream): Promise<void> {
    const now = performance.now();
    try {
      const connection = await upstream.client.connection();
      const rtt = await measure(connection);
      if (!this.#closed) this.#worked(upstream, rtt);
    } catch (error) {
      if (this.#closed) return;
      upstream.noteFailure(error, now);
      this.#events.onFailure?.(upstream, error);
      this.#left(upstream);
    }
  }

  #probe(): void {
    if (this.#closed) return;
    const now = performance.now();
    this.#moved(this.#paths.settle(now));
    for (const path of this.#paths.snapshot()) this.#note(path.id, path.state);
    for (let id = this.#paths.probe(now); id !== undefined; id = this.#paths.probe(now)) {
      this.#probeOne(this.#upstreams.get(id)!);
    }
    this.#arm();
  }

  /** Keeps the state of a path at hand, and tells of one that failed. */
  #note(id: string, state: PathState): void {
    if (this.#states.get(id) === state) return;
    this.#states.set(id, state);
    if (state === "failed") this.#events.onPathFailed?.(this.#upstreams.get(id)!);
  }

  #moved(change: PathSwitch | undefined): void {
    if (change === undefined) return;
    this.#active = change.to === undefined ? undefined : this.#upstreams.get(change.to);
    this.#events.onSwitch?.(change);
  }

  #arm(): void {
    if (this.#closed) return;
    const at = this.#paths.nextWakeAt();
    if (at === this.#timerAt && this.#timer !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerAt = at;
    if (at === Infinity) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#probe();
    }, timerDelay(Math.max(0, at - performance.now())));
  }
}

/**
 * How far an upstream is, in ms. An answer that took long may have waited for the upstream to come back: asked again, that
 * one tells. Taken for its distance, the time that it was gone would delay the next fail-over by as much.
 */
async function measure(connection: HtxConnection): Promise<number> {
  const rtt = await connection.ping();
  return rtt < STALL_MS ? rtt : Math.min(rtt, await connection.ping());
}

function firstOf<T>(values: Iterable<T>): T | undefined {
  for (const value of values) return value;
  return undefined;
}

/** e-38: a gateway that dials itself would go round for ever. */
function refuseSelf(keyPair: KeyPair, publicKey: Uint8Array): void {
  if (timingSafeEqual(keyPair.publicKey, publicKey)) {
    throw new TypeError(
      `Cannot make gateway: upstream ${toHex(publicKey).slice(0, 16)}… has the gateway's own key`,
    );
  }
}

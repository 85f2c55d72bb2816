/**
 * The dialing side: from an address and a pinned key to streams and `fetch`.
 *
 * @module
 */

import { deferred, raced } from "../core/_deferred.ts";
import { tell } from "../core/_tell.ts";
import {
  ByteCollector,
  type ByteIo,
  type Bytes,
  type ConnectionOptions,
  deriveSessionKeys,
  type Duplex,
  type DuplexAddr,
  HtxConnection,
  HtxError,
  type HtxStream,
  resolveLimits,
  selectCrypto,
  StreamIo,
} from "../core/mod.ts";
import { checkInitiateOptions, KeyPair, type PreparedInitiator, prepareInitiator } from "../noise/mod.ts";
import { duplexIo } from "./_duplex_io.ts";
import { endDuplex } from "../core/_end_duplex.ts";
import { racedDial } from "./_raced_dial.ts";
import { type ControlStreamReceiver, receiveControl } from "./control.ts";
import { trafficShape } from "./duplex.ts";
import {
  exchangeOverStream,
  fetchOverStream,
  type FetchOverStreamOptions,
  HttpBody,
  type HttpExchangeOptions,
  type HttpRequestParts,
  type HttpResponse,
} from "./http/mod.ts";
import { cancelQuietly } from "./http/send.ts";
import { dialTcp, type TcpAddress } from "./tcp.ts";

/** Least time between a dial that failed and one beside connections that stand, in ms. */
export const REDIAL_MS = 100;

/** Opens a duplex to the server: whatever carrier it takes. Called anew for every connection. */
export type Dialer = (options: { signal?: AbortSignal | undefined }) => Promise<Duplex>;

/** Options of {@linkcode connectDuplex}. */
export interface ConnectDuplexOptions extends ConnectionOptions {
  /** The server's static public key, pinned: 32 bytes, canonical. There is no way around it. */
  remoteStatic: Uint8Array;
  /** This side's static key: who it is to the server. @default {a fresh one for each client} */
  keyPair?: KeyPair | undefined;
  /** `"require"` makes the hybrid handshake and takes nothing less; `"off"` the classic one. @default {"require"} */
  postQuantum?: "require" | "off" | undefined;
  /** Bytes of the carrier that both ends configured (HTX 1.1 §1). @default {none} */
  channelBinding?: Uint8Array | undefined;
  /** How long the handshake may take, in ms. @default {10000} */
  handshakeTimeoutMs?: number | undefined;
  /** Gives up dialing and the handshake; a connection that stands is not touched. */
  signal?: AbortSignal | undefined;
  /** Takes the streams that the server opens. @default {they are at `incomingBidirectionalStreams`} */
  onStream?: ((stream: HtxStream, connection: HtxConnection) => void | Promise<void>) | undefined;
  /** Takes stream 2 (HTX 1.1 §8). @default {it is refused} */
  controlStream?: ControlStreamReceiver | undefined;
}

/**
 * The client's side of one duplex: handshake, then the connection. A `Promise` for the duplex lets the first
 * message be computed while the carrier still connects.
 *
 * When it resolves, the server has not verified this side's key yet: that it was let in shows with its first frame.
 *
 * @throws {TypeError} when the pinned key is missing or is no canonical X25519 key
 * @throws {HtxError} `HANDSHAKE_FAILED`, or what the carrier failed with; the duplex is ended
 */
export async function connectDuplex(
  duplex: Duplex | Promise<Duplex>,
  options: ConnectDuplexOptions,
): Promise<HtxConnection> {
  const crypto = options.crypto ?? selectCrypto();
  let prepared: PreparedInitiator;
  try {
    resolveLimits(options);
    prepared = prepareInitiator({
      remoteStatic: options.remoteStatic,
      keyPair: options.keyPair ?? KeyPair.generate(),
      postQuantum: options.postQuantum,
      channelBinding: options.channelBinding,
      timeoutMs: options.handshakeTimeoutMs,
      signal: options.signal,
      crypto,
      deferMessage3: true,
    });
  } catch (error) {
    Promise.resolve(duplex).then(endDuplex, () => {}); // the caller's mistake comes first
    throw error;
  }
  let carrier: Duplex;
  let io: ByteIo;
  try {
    carrier = await racedDial(Promise.resolve(duplex), options.signal);
    io = duplexIo(carrier);
  } catch (error) {
    await prepared.discard();
    throw error;
  }
  const result = await prepared.run(io);
  const { controlStream, onStream } = options;
  try {
    const connection: HtxConnection = new HtxConnection(carrier, {
      ...options,
      ...trafficShape(carrier, options),
      role: "client",
      crypto,
      keys: deriveSessionKeys(result.secrets, crypto),
      remoteStatic: result.remoteStatic,
      handshake: { protocol: result.protocol, hybrid: result.hybrid, hash: result.hash },
      pending: result.pending,
      received: io instanceof StreamIo ? io.release() : undefined,
      onStream: onStream && ((stream) => onStream(stream, connection)),
      onControlStream: controlStream && ((stream) => receiveControl(connection, stream, controlStream)),
    });
    return connection;
  } catch (error) {
    result.wipe();
    endDuplex(carrier);
    throw error;
  }
}

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends ConnectDuplexOptions {
  /**
   * Connections kept at most: another is dialed, one at a time, when all have as many streams open as they may, and 100 ms
   * after one that failed at the earliest. Those that take no more streams and finish what they have do not count.
   *
   * @default {1}
   */
  maxConnections?: number | undefined;
  /** Told of each connection made. */
  onConnection?: ((connection: HtxConnection) => void) | undefined;
}

/** What a client has done so far. */
export interface ClientStats {
  /** Connections open now. */
  readonly connections: number;
  /** Connections made. */
  readonly connected: number;
  /** Dials and handshakes that failed. */
  readonly failed: number;
}

/** What `client.fetch` takes beside the request. */
export interface ClientFetchOptions extends FetchOverStreamOptions {
  /** As in `fetch`. @default {"GET"} */
  method?: string | undefined;
  /** As in `fetch`. */
  headers?: HeadersInit | undefined;
  /** As in `fetch`; a stream is sent as it is read. */
  body?: BodyInit | null | undefined;
}

/** A connection, and the stream that has a place on it, will have one, or shows why not. */
interface Place {
  readonly connection: HtxConnection;
  readonly stream: HtxStream | Promise<HtxStream>;
}

/** A caller for whom there was no place. */
interface Waiter {
  readonly signal: AbortSignal | undefined;
  readonly resolve: (place: Place) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A client of one server: keeps a connection (or a few), and dials again when it is gone. `await using` closes it.
 *
 * Failures are not retried by themselves, with one exception: a request that the peer never gave to its application
 * (HTX 1.1 §3: STREAM_LIMIT, REFUSED, GOING_AWAY) and whose body can be sent again goes out once more.
 */
export class HtxClient implements AsyncDisposable {
  /** The server's static public key. */
  readonly remoteStatic: Bytes;
  readonly #dial: Dialer;
  readonly #options: ConnectDuplexOptions;
  readonly #keyPair: KeyPair;
  readonly #maxConnections: number;
  readonly #onConnection: ConnectOptions["onConnection"];
  readonly #connections: Set<HtxConnection> = new Set();
  /** When each was last handed out: equally busy ones take turns. */
  readonly #handedOut: WeakMap<HtxConnection, number> = new WeakMap();
  #handOuts = 0;
  #dialing: Promise<HtxConnection> | undefined;
  /** Who waits for a place, first come first: the next is theirs, on whichever connection it is. */
  readonly #waiting: Set<Waiter> = new Set();
  /** Connections that are asked for a place on behalf of who waits, and what takes that back. */
  readonly #asked: Map<HtxConnection, AbortController> = new Map();
  #giveUp: AbortController = new AbortController();
  /** When a connection last failed before it was of any use. */
  #failedAt = -Infinity;
  /** Dials for who waits, once that may be tried again. */
  #redial: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #connected = 0;
  #failed = 0;

  /** Dials with the first call that needs a connection. See {@linkcode connect} for one that dials now. */
  constructor(target: TcpAddress | DuplexAddr | Dialer, options: ConnectOptions) {
    this.#dial = typeof target === "function" ? target : tcpDialer(target);
    const { signal: _signal, maxConnections = 1, onConnection, ...rest } = options;
    if (!Number.isInteger(maxConnections) || maxConnections < 1) {
      throw new RangeError(`Cannot connect: maxConnections is ${maxConnections}, not 1 or more`);
    }
    this.#maxConnections = maxConnections;
    this.#onConnection = onConnection;
    resolveLimits(options);
    this.#keyPair = options.keyPair ?? KeyPair.generate();
    this.#options = { ...rest, keyPair: this.#keyPair };
    checkInitiateOptions({
      ...this.#options,
      keyPair: this.#keyPair,
      timeoutMs: options.handshakeTimeoutMs,
      signal: undefined,
    });
    this.remoteStatic = new Uint8Array(options.remoteStatic);
  }

  /** Counters. */
  get stats(): ClientStats {
    return { connections: this.#connections.size, connected: this.#connected, failed: this.#failed };
  }

  /** The connections open now. */
  get connections(): ReadonlySet<HtxConnection> {
    return this.#connections;
  }

  /**
   * A connection that takes streams: the least busy one (of several the next in turn), or a new one. Where a new one
   * cannot be had, streams wait on one that is full.
   *
   * It tells where there is room now, and keeps no place there: it is not known here whether a stream will follow.
   * Callers who ask before any of them has opened a stream share what is there, and cause no further dial; with
   * {@linkcode HtxClient.createBidirectionalStream} and {@linkcode HtxClient.fetch} each call takes its place.
   *
   * @throws {HtxError} what dialing failed with, or `CLOSED` when the client was closed
   */
  async connection(options: { signal?: AbortSignal | undefined } = {}): Promise<HtxConnection> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    const best = this.#leastBusy();
    // A dial may take long: the one who causes it waits for it, and whoever has no connection at all.
    if (best !== undefined && (hasRoom(best) || this.#dialPause !== 0)) return this.#handOut(best);
    try {
      const connection = await raced(this.#dialOnce(), signal);
      if (!connection.closing) return this.#handOut(connection);
      await raced(connection.closed, signal);
      throw new HtxError("CLOSED", "Cannot connect: the connection ended at once");
    } catch (error) {
      const full = this.#leastBusy();
      if (full === undefined || this.#closed || signal?.aborted) throw error;
      return this.#handOut(full);
    }
  }

  #handOut(connection: HtxConnection): HtxConnection {
    this.#handedOut.set(connection, ++this.#handOuts);
    return connection;
  }

  #leastBusy(): HtxConnection | undefined {
    let best: HtxConnection | undefined;
    for (const connection of this.#connections) {
      if (!takesStreams(connection)) continue;
      if (best === undefined || this.#comesBefore(connection, best)) best = connection;
    }
    return best;
  }

  #comesBefore(one: HtxConnection, other: HtxConnection): boolean {
    if (one.openStreams !== other.openStreams) return one.openStreams < other.openStreams;
    return (this.#handedOut.get(one) ?? 0) < (this.#handedOut.get(other) ?? 0);
  }

  /** In how many ms another connection may be dialed; `undefined` where none may. */
  get #dialPause(): number | undefined {
    if (this.#dialing !== undefined) return undefined;
    let kept = 0;
    for (const connection of this.#connections) if (takesStreams(connection)) kept++;
    if (kept === 0) return 0;
    if (kept >= this.#maxConnections) return undefined;
    return Math.max(0, this.#failedAt + REDIAL_MS - performance.now());
  }

  /** The dial that is under way, or else a new one. */
  #dialOnce(): Promise<HtxConnection> {
    if (this.#dialing === undefined) {
      // Cleared out here: a dialer that throws at once has failed before `#dialing` is set.
      this.#dialing = this.#connectOnce().finally(() => this.#dialing = undefined);
      this.#dialing.then((connection) => {
        if (connection.closing) this.#failedAt = performance.now(); // it has ended with its handshake
        this.#serveWaiting(connection);
      }, (error) => {
        this.#failedAt = performance.now();
        if (this.#leastBusy() === undefined) this.#refuseWaiting(error);
        else this.#serveWaiting();
      });
    }
    return this.#dialing;
  }

  async #connectOnce(): Promise<HtxConnection> {
    const signal = this.#giveUp.signal;
    try {
      const connection = await connectDuplex(this.#dial({ signal }), { ...this.#options, signal });
      if (this.#closed) {
        await connection.close();
        throw closedError();
      }
      this.#connected++;
      this.#connections.add(connection);
      connection.closed.catch(() => {}).finally(() => this.#connections.delete(connection));
      tell(this.#onConnection, connection);
      return connection;
    } catch (error) {
      this.#failed++;
      throw error;
    }
  }

  /**
   * Opens a stream; the server learns of it with its first data. Waits while every connection that there may be has as
   * many open as it may (`maxConnections`, `maxLocalStreams`).
   *
   * @throws {HtxError} what dialing failed with, or `CLOSED` when the client was closed
   * @throws the signal's reason
   */
  async createBidirectionalStream(options: { signal?: AbortSignal | undefined } = {}): Promise<HtxStream> {
    return (await this._open(options.signal)).stream;
  }

  /** @internal */
  async _open(signal: AbortSignal | undefined): Promise<{ connection: HtxConnection; stream: HtxStream }> {
    for (let again = true;; again = false) {
      signal?.throwIfAborted();
      if (this.#closed) throw closedError();
      const best = this.#waiting.size === 0 ? this.#leastBusy() : undefined;
      const { connection, stream } = best !== undefined && hasRoom(best)
        ? placeOn(best, signal)
        : await this.#waitForPlace(signal);
      try {
        return { connection, stream: await stream };
      } catch (error) {
        // It ended while the stream waited for its turn: nothing was sent, another connection does as well.
        if (!again || this.#closed || signal?.aborted || takesStreams(connection)) throw error;
      }
    }
  }

  async #waitForPlace(signal: AbortSignal | undefined): Promise<Place> {
    const { promise, resolve, reject } = deferred<Place>();
    const waiter: Waiter = { signal, resolve, reject };
    const onAbort = () => {
      this.#forget(waiter);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#waiting.add(waiter);
    this.#serveWaiting();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #forget(waiter: Waiter): void {
    this.#waiting.delete(waiter);
    if (this.#waiting.size > 0) return;
    clearTimeout(this.#redial);
    this.#redial = undefined;
    for (const asked of this.#asked.values()) asked.abort("nobody waits"); // or a place would be taken for nobody
  }

  /** Who has waited longest; they wait no more. */
  #nextWaiting(): Waiter {
    const [waiter] = this.#waiting;
    this.#forget(waiter!);
    return waiter!;
  }

  #refuseWaiting(error: unknown): void {
    while (this.#waiting.size > 0) this.#nextWaiting().reject(error);
  }

  /**
   * Gives those who wait the places there are, asks for those to come, and dials if there may be more. `news` is a
   * connection that was made, or that was asked and gives no more places.
   */
  #serveWaiting(news?: HtxConnection): void {
    let best = this.#leastBusy();
    if (best === undefined && this.#dialing === undefined && news?.closing) {
      // The last one has ended. All see what it ended with, and each tries once more.
      while (this.#waiting.size > 0) this.#nextWaiting().resolve(placeOn(news, undefined));
    }
    for (; this.#waiting.size > 0 && best !== undefined && hasRoom(best); best = this.#leastBusy()) {
      const { openStreams } = best;
      const waiter = this.#nextWaiting();
      waiter.resolve(placeOn(best, waiter.signal));
      if (best.openStreams === openStreams) break; // somebody waits there without this client: they come first
    }
    if (this.#waiting.size === 0) return;
    for (const connection of this.#connections) {
      if (takesStreams(connection) && !this.#asked.has(connection)) this.#ask(connection);
    }
    const pause = this.#dialPause;
    if (pause === 0) this.#dialOnce();
    else if (pause !== undefined) {
      this.#redial ??= setTimeout(() => {
        this.#redial = undefined;
        this.#serveWaiting();
      }, pause);
    }
  }

  /** Waits for places on `connection` for as long as there is somebody who waits for one anywhere. */
  async #ask(connection: HtxConnection): Promise<void> {
    const asked = new AbortController();
    this.#asked.set(connection, asked);
    try {
      while (this.#waiting.size > 0) {
        const stream = await connection.createBidirectionalStream({ signal: asked.signal });
        if (this.#waiting.size > 0) this.#nextWaiting().resolve({ connection, stream });
        else stream.reset("CANCELLED"); // they gave up just now
      }
    } catch (error) {
      // Nobody waited any more, or the connection takes no more streams: seen below.
      if (error instanceof HtxError && error.code === "HANDSHAKE_FAILED") this.#failedAt = performance.now();
    }
    this.#asked.delete(connection);
    if (this.#waiting.size > 0) this.#serveWaiting(connection);
  }

  /**
   * `fetch` through the tunnel. A URL that begins with `/` is one of the server's; redirects are handed on as they
   * are. It takes the place of `fetch` in what lets one be given: `(input, init) => client.fetch(input, init)`.
   *
   * @example
   * ```ts
   * import { connect, serve } from "@betanet/htx/transport";
   * import { assertEquals } from "@std/assert";
   *
   * await using server = serve((request) => Response.json({ path: new URL(request.url).pathname }));
   * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
   * const response = await client.fetch("/hello");
   * assertEquals(await response.json(), { path: "/hello" });
   * ```
   *
   * @throws {HtxError} when connecting, the stream or the response fails
   * @throws the signal's reason
   */
  async fetch(input: Request | URL | string, options: ClientFetchOptions = {}): Promise<Response> {
    const { method, headers, body, ...rest } = options;
    const changed = method !== undefined || headers !== undefined || body !== undefined;
    const request = input instanceof Request && !changed ? input : new Request(
      input instanceof Request ? input : absolute(input),
      requestInit({ method, headers, body }),
    );
    const signal = rest.signal ? AbortSignal.any([rest.signal, request.signal]) : request.signal;
    try {
      return await this.#again(
        request.body === null,
        signal,
        (stream) => fetchOverStream(stream, request, rest),
      );
    } catch (error) {
      // Given up before there was a stream: its source is told. After any other failure it can be sent elsewhere.
      if (signal.aborted && request.body !== null) cancelQuietly(request.body, signal.reason);
      throw error;
    }
  }

  /**
   * One exchange in the form that it has on the wire: the path byte for byte, fields in their order.
   *
   * @throws {HtxError} when connecting, the stream or the response fails
   * @throws the signal's reason
   */
  async exchange(request: HttpRequestParts, options: HttpExchangeOptions = {}): Promise<HttpResponse> {
    const { body } = request;
    const { signal } = options;
    const replayable = body === undefined || body === null || typeof body === "string" ||
      body instanceof Uint8Array;
    try {
      return await this.#again(
        replayable,
        signal,
        (stream) => exchangeOverStream(stream, request, options),
      );
    } catch (error) {
      // As in `fetch`: its source is told.
      const source = body instanceof HttpBody || body instanceof ReadableStream;
      if (signal?.aborted && source) cancelQuietly(body, signal.reason);
      throw error;
    }
  }

  async #again<T>(
    replayable: boolean,
    signal: AbortSignal | undefined,
    attempt: (stream: HtxStream) => Promise<T>,
  ): Promise<T> {
    for (let again = replayable;; again = false) {
      const { connection, stream } = await this._open(signal);
      try {
        return await attempt(stream);
      } catch (error) {
        stream.reset("CANCELLED"); // the attempt may have failed before it touched the stream
        if (!(error instanceof HtxError) || !error.retryable) throw error;
        // Its server takes no more streams there: it ends with the last of them, and who waits for a place is told.
        if (error.code === "GOING_AWAY" && error.remote) connection.drain().catch(() => {});
        if (!again || this.#closed || signal?.aborted) throw error;
      }
    }
  }

  /** Ends all connections: what is under way errors with CANCELLED. Idempotent. */
  async close(): Promise<void> {
    this.#stop();
    await this.#dialing?.catch(() => {}); // told to who asked for it
    await Promise.all([...this.#connections].map((connection) => connection.close()));
  }

  /** Lets open streams finish, then ends all connections. Who waits for a stream is told `CLOSED` at once. */
  async drain(): Promise<void> {
    this.#stop();
    await Promise.all([...this.#connections].map((connection) => connection.drain().catch(() => {})));
    await this.close();
  }

  #stop(): void {
    this.#closed = true;
    const error = closedError();
    this.#giveUp.abort(error);
    this.#refuseWaiting(error);
  }

  /** Closes, and waits for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Connects to an HTX server: an address to dial with TCP, or a function that opens a duplex.
 *
 * @example An echo
 * ```ts
 * import { connect, echo, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveStreams(echo());
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * const stream = await client.createBidirectionalStream();
 * await stream.write(new Uint8Array([1, 2, 3]), { end: true });
 * assertEquals(await stream.read(), new Uint8Array([1, 2, 3]));
 * ```
 *
 * @throws {TypeError} when the pinned key is missing or is no canonical X25519 key, or the address has no port
 * @throws {RangeError} when a bound is out of its range
 * @throws {HtxError} `CONNECT_FAILED` where the server cannot be reached, `HANDSHAKE_FAILED` where it is not who it must
 * be. That this side is not admitted shows later: the first stream fails with `HANDSHAKE_FAILED`
 * @throws the signal's reason, or what a {@linkcode Dialer} of one's own fails with
 */
export async function connect(
  target: TcpAddress | DuplexAddr | Dialer,
  options: ConnectOptions,
): Promise<HtxClient> {
  const client = new HtxClient(target, options);
  try {
    await client.connection({ signal: options.signal });
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

/** Options of {@linkcode roundtrip}. */
export interface RoundtripOptions extends ConnectOptions {
  /** The most bytes taken in answer. @default {16777216} */
  maxBytes?: number | undefined;
}

/**
 * One question, one answer: connects, sends `data` on a stream of its own, gives back what came until the server
 * ended the stream, and closes.
 *
 * @example
 * ```ts
 * import { echo, roundtrip, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveStreams(echo());
 * const answer = await roundtrip(server.addr, "hello", { remoteStatic: server.publicKey });
 * assertEquals(new TextDecoder().decode(answer), "hello");
 * ```
 *
 * @throws {HtxError} as {@linkcode connect}; the stream's error; `LIMIT_EXCEEDED` past `maxBytes`
 */
export async function roundtrip(
  target: TcpAddress | DuplexAddr | Dialer,
  data: Uint8Array | string,
  options: RoundtripOptions,
): Promise<Bytes> {
  const { maxBytes = 16 * 1024 ** 2, signal } = options;
  await using client = await connect(target, options);
  const stream = await client.createBidirectionalStream({ signal });
  const onAbort = () => stream.reset("CANCELLED");
  if (signal?.aborted) onAbort(); // since the stream was opened
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    // Sending and receiving go on at once: an echo's answer fills the window while the question is under way.
    const sending = stream.write(typeof data === "string" ? new TextEncoder().encode(data) : data, {
      end: true,
    });
    sending.catch(() => {}); // reading tells it too
    const answer = new ByteCollector();
    for (;;) {
      const chunk = await stream.read();
      if (chunk === null) break;
      if (answer.size + chunk.length > maxBytes) {
        stream.reset("CANCELLED");
        throw new HtxError("LIMIT_EXCEEDED", `Cannot take answer: it is longer than ${maxBytes} bytes`);
      }
      answer.push(chunk);
    }
    return answer.take();
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function closedError(): HtxError {
  return new HtxError("CLOSED", "Cannot connect: the client was closed");
}

function takesStreams(connection: HtxConnection): boolean {
  return !connection.closing && !connection.draining;
}

function hasRoom(connection: HtxConnection): boolean {
  return connection.openStreams < connection.maxOpenStreams;
}

/** Taken on the spot where there is one: who asks next sees one less. */
function placeOn(connection: HtxConnection, signal: AbortSignal | undefined): Place {
  return { connection, stream: connection.createBidirectionalStream({ signal }) };
}

function tcpDialer(target: TcpAddress | DuplexAddr): Dialer {
  const { hostname = "127.0.0.1", port } = target;
  if (port === undefined) throw new TypeError("Cannot connect: the address has no port");
  if ("transport" in target && target.transport !== "tcp") {
    throw new TypeError(`Cannot connect: the address is one of ${target.transport}; pass a dialer for it`);
  }
  return ({ signal }) => dialTcp({ hostname, port }, { signal });
}

/** What is given of a request. Browsers ask for `duplex` where a stream is the body; the type does not know it. */
function requestInit({ method, headers, body }: ClientFetchOptions): RequestInit & { duplex?: "half" } {
  return {
    ...(method !== undefined && { method }),
    ...(headers !== undefined && { headers }),
    ...(body !== undefined && { body }),
    ...(body instanceof ReadableStream && { duplex: "half" }),
  };
}

/** `url`, where a bare path stands for one of the server that the tunnel leads to. */
function absolute(url: URL | string): URL {
  return typeof url === "string" && url.startsWith("/") ? new URL(`http://localhost${url}`) : new URL(url);
}

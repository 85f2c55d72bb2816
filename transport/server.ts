/**
 * The accept loop: duplexes in, {@linkcode HtxConnection}s out, their streams to an upstream.
 *
 * @module
 */

import { deferred, within } from "../core/_deferred.ts";
import {
  type Bytes,
  concat,
  type ConnectionOptions,
  type CryptoBackend,
  deriveSessionKeys,
  type Duplex,
  type DuplexAddr,
  HtxConnection,
  HtxError,
  type HtxStream,
  INITIAL_WINDOW,
  loadSodium,
  resolveLimits,
  selectCrypto,
  StreamIo,
} from "../core/mod.ts";
import {
  checkRespondOptions,
  type HandshakeResult,
  KeyPair,
  ReplayGuard,
  respond,
  type RespondOptions,
} from "../noise/mod.ts";
import { AddressPlaces } from "./_address_places.ts";
import { acceptNext } from "./_accept.ts";
import { duplexIo } from "./_duplex_io.ts";
import { endDuplex } from "../core/_end_duplex.ts";
import { tell } from "../core/_tell.ts";
import type { ControlStreamHook } from "./control.ts";
import { sendControl } from "./control.ts";
import { trafficShape } from "./duplex.ts";
import type { DuplexListener } from "./listener.ts";
import { listenTcp } from "./tcp.ts";

/** What an upstream knows of the stream it is given. */
export interface StreamInfo {
  /** The connection that the stream belongs to. */
  readonly connection: HtxConnection;
  /** The peer's static public key, proven by the handshake. */
  readonly remoteStatic: Bytes;
  /** Where the peer stands, if the carrier tells. */
  readonly remoteAddr: DuplexAddr | undefined;
}

/** Streams that a client may have open where the options say nothing (HTX 1.1 §4). */
const DEFAULT_PEER_STREAMS = 256;

/** What a server does with a stream: settles when it is through with it. A rejection resets the stream with INTERNAL_ERROR. */
export type StreamHandler = (stream: HtxStream, info: StreamInfo) => void | Promise<void>;

/** Options of {@linkcode acceptDuplex}. */
export interface AcceptOptions extends ConnectionOptions {
  /** The static key that clients have pinned. */
  keyPair: KeyPair;
  /** Which handshakes are taken: `"accept"` both, `"require"` the hybrid one alone, `"off"` the classic one alone. @default {"accept"} */
  postQuantum?: "accept" | "require" | "off" | undefined;
  /** Whether the client with this static key may come in; asked after its key is proven. @default {everyone may} */
  authorize?: ((remoteStatic: Bytes) => boolean | Promise<boolean>) | undefined;
  /** Remembers the handshakes seen, so that a recording that is played again shows nothing; share one between listeners. @default {one of 65 536} */
  replayGuard?: ReplayGuard | undefined;
  /** Bytes of the carrier that both ends configured (HTX 1.1 §1). @default {none} */
  channelBinding?: Uint8Array | undefined;
  /** How long the handshake may take, in ms. @default {10000} */
  handshakeTimeoutMs?: number | undefined;
  /** Takes a duplex over whose handshake failed, with what was read of it: a decoy. @default {the silent end of HTX 1.1 §1} */
  onHandshakeFailure?: RespondOptions["onFailure"] | undefined;
  /** Takes the client's streams. Without it they are at `incomingBidirectionalStreams`. */
  onStream?: StreamHandler | undefined;
  /** Sends on stream 2 (HTX 1.1 §8). @default {stream 2 is never opened} */
  controlStream?: ControlStreamHook | undefined;
  /** Gives the handshake up. */
  signal?: AbortSignal | undefined;
}

/**
 * The server's side of one duplex: handshake, then the connection.
 *
 * @throws {TypeError} or {RangeError} when an option is not what it must be; the duplex is ended
 * @throws {HtxError} `HANDSHAKE_FAILED`, whatever went wrong; the duplex is ended or in the decoy's hands
 */
export async function acceptDuplex(duplex: Duplex, options: AcceptOptions): Promise<HtxConnection> {
  return openConnection(duplex, options, await shakeHands(duplex, options));
}

/** A handshake that is through, and what came behind it. */
interface Handshaken {
  readonly crypto: CryptoBackend;
  readonly result: HandshakeResult;
  readonly received: Uint8Array;
}

/**
 * What the handshake needs of the options.
 *
 * @throws {TypeError} or {RangeError} when one of them, or a bound of the session to come, is not what it must be
 */
function respondOptions(options: AcceptOptions): RespondOptions {
  resolveLimits(options);
  const asked: RespondOptions = {
    keyPair: options.keyPair,
    replayGuard: options.replayGuard ?? new ReplayGuard(),
    postQuantum: options.postQuantum,
    channelBinding: options.channelBinding,
    timeoutMs: options.handshakeTimeoutMs,
    onFailure: options.onHandshakeFailure,
    signal: options.signal,
  };
  checkRespondOptions(asked);
  return asked;
}

async function shakeHands(duplex: Duplex, options: AcceptOptions): Promise<Handshaken> {
  let forHandshake: RespondOptions;
  try {
    forHandshake = respondOptions(options);
  } catch (error) {
    endDuplex(duplex);
    throw error;
  }
  const crypto = options.crypto ?? selectCrypto();
  const { authorize } = options;
  const io = duplexIo(duplex);
  const result = await respond(io, {
    ...forHandshake,
    // Who is asked about has proven its key, and may send what its streams begin with meanwhile.
    authorize: authorize && ((remoteStatic) => {
      duplex.limitReceive?.(() => (options.maxPeerStreams ?? DEFAULT_PEER_STREAMS) * INITIAL_WINDOW);
      return authorize(remoteStatic);
    }),
    crypto,
  });
  return {
    crypto,
    result,
    received: io instanceof StreamIo ? concat(result.rest, io.release()) : result.rest,
  };
}

/** From here on the application sees streams. */
function openConnection(duplex: Duplex, options: AcceptOptions, shaken: Handshaken): HtxConnection {
  let connection: HtxConnection;
  try {
    connection = connectionOf(duplex, options, shaken);
  } catch (error) {
    shaken.result.wipe();
    endDuplex(duplex);
    throw error;
  }
  try {
    if (options.controlStream !== undefined) sendControl(connection, options.controlStream);
  } catch (error) {
    connection.abort(); // the hook's own failure: nobody would own the connection
    throw error;
  }
  return connection;
}

function connectionOf(duplex: Duplex, options: AcceptOptions, shaken: Handshaken): HtxConnection {
  const { crypto, result, received } = shaken;
  const { onStream } = options;
  const connection: HtxConnection = new HtxConnection(duplex, {
    ...options,
    ...trafficShape(duplex, options),
    role: "server",
    crypto,
    keys: deriveSessionKeys(result.secrets, crypto),
    remoteStatic: result.remoteStatic,
    handshake: { protocol: result.protocol, hybrid: result.hybrid, hash: result.hash },
    received,
    onControlStream: undefined,
    onStream: onStream &&
      ((stream) =>
        onStream(stream, {
          connection,
          remoteStatic: connection.remoteStatic,
          remoteAddr: connection.remoteAddr,
        })),
  });
  return connection;
}

/** Options of {@linkcode serveStreams}. */
export interface ServeStreamsOptions extends Omit<AcceptOptions, "keyPair" | "onStream"> {
  /** Address to listen on, with TCP. @default {"127.0.0.1"} */
  hostname?: string | undefined;
  /** Port to listen on, with TCP; 0 lets the system choose. @default {0} */
  port?: number | undefined;
  /** Listens here: any number of carriers, each closed with the server. @default {TCP at `hostname` and `port`} */
  listeners?: readonly DuplexListener[] | undefined;
  /** The static key that clients pin. @default {a fresh one, to be read at `server.publicKey`} */
  keyPair?: KeyPair | undefined;
  /** Handshakes under way at once; past it the oldest is dropped (HTX 1.1 §1). @default {1024} */
  maxHalfOpen?: number | undefined;
  /** Connections at once; past it new ones are closed, none of their streams seen. @default {4096} */
  maxConnections?: number | undefined;
  /**
   * Connections at once from one address (of IPv6: from one /64), handshakes under way among them; past it new ones are
   * closed. Who comes through the same gateway, proxy or NAT has one address. Carriers that know no addresses count
   * nothing.
   *
   * @default {none: as many as `maxConnections`}
   */
  maxConnectionsPerAddress?: number | undefined;
  /** Called once it listens. */
  onListen?: ((server: HtxServer) => void) | undefined;
  /** Called with each connection that came through its handshake. */
  onConnection?: ((connection: HtxConnection) => void) | undefined;
  /** Told of handshakes that failed and listeners that broke. Never told a secret. @default {nobody is} */
  onError?: ((error: unknown) => void) | undefined;
  /** Ends the server at once, as {@linkcode HtxServer.abort} does. @default {none} */
  signal?: AbortSignal | undefined;
}

/** A running server. `await using` shuts it down. */
export class HtxServer implements AsyncDisposable {
  /** The key that clients pin: 32 bytes. */
  readonly publicKey: Bytes;
  /** Settles when the server has ended and all its connections have. */
  readonly finished: Promise<void>;

  readonly #options: AcceptOptions;
  readonly #listeners: readonly DuplexListener[];
  readonly #maxHalfOpen: number;
  readonly #maxConnections: number;
  readonly #places: AddressPlaces;
  readonly #onConnection: ServeStreamsOptions["onConnection"];
  readonly #onError: ServeStreamsOptions["onError"];
  readonly #halfOpen: Set<AbortController> = new Set();
  readonly #connections: Set<HtxConnection> = new Set();
  readonly #tasks: Set<Promise<unknown>> = new Set();
  readonly #finished: PromiseWithResolvers<void> = deferred();
  #stopping = false;

  /** Made by {@linkcode serveStreams}. */
  constructor(handler: StreamHandler, options: ServeStreamsOptions) {
    const keyPair = options.keyPair ?? KeyPair.generate();
    this.publicKey = keyPair.publicKey;
    this.#maxHalfOpen = bound("maxHalfOpen", options.maxHalfOpen ?? 1024);
    this.#maxConnections = bound("maxConnections", options.maxConnections ?? 4096);
    const { maxConnectionsPerAddress } = options;
    this.#places = new AddressPlaces(
      maxConnectionsPerAddress === undefined
        ? Infinity
        : bound("maxConnectionsPerAddress", maxConnectionsPerAddress),
    );
    this.#onConnection = options.onConnection;
    this.#onError = options.onError;
    const { signal, ...accept } = options;
    this.#options = {
      ...accept,
      keyPair,
      replayGuard: options.replayGuard ?? new ReplayGuard(),
      onStream: handler,
    };
    respondOptions(this.#options); // the caller's mistakes show now, not with each connection
    this.finished = this.#finished.promise;
    signal?.throwIfAborted();
    this.#listeners = options.listeners ??
      [listenTcp({ hostname: options.hostname ?? "127.0.0.1", port: options.port ?? 0 })];
    for (const listener of this.#listeners) this.#track(this.#acceptAll(listener));
    if (signal !== undefined) {
      const onAbort = () => this.abort();
      signal.addEventListener("abort", onAbort, { once: true });
      this.finished.then(() => signal.removeEventListener("abort", onAbort));
    }
    try {
      options.onListen?.(this);
    } catch (error) {
      this.abort(); // the hook's own failure: nobody would own the server
      throw error;
    }
  }

  /** Where the first listener listens. */
  get addr(): DuplexAddr {
    return this.#listeners[0]?.addr ?? { transport: "none" };
  }

  /** Where all listeners listen. */
  get addrs(): readonly DuplexAddr[] {
    return this.#listeners.map((listener) => listener.addr);
  }

  /** The connections open now. */
  get connections(): ReadonlySet<HtxConnection> {
    return this.#connections;
  }

  /** Handshakes under way. */
  get halfOpen(): number {
    return this.#halfOpen.size;
  }

  /**
   * Takes a duplex from elsewhere, such as an upgraded WebSocket, as if it had been accepted here. Settles when its
   * handshake is through; `undefined` where it failed or the server is full or stopping.
   */
  accept(duplex: Duplex): Promise<HtxConnection | undefined> {
    const accepted = this.#accept(duplex);
    this.#track(accepted); // what a handshake has under way is over, too, when the server is finished
    return accepted;
  }

  async #accept(duplex: Duplex): Promise<HtxConnection | undefined> {
    const leave = this.#stopping || this.#full ? undefined : this.#places.take(duplex.remoteAddr?.hostname);
    if (leave === undefined) {
      endDuplex(duplex);
      return undefined;
    }
    const connection = await this.#shakeHands(duplex);
    if (connection === undefined) {
      leave();
      return undefined;
    }
    const ended = () => {
      leave();
      this.#connections.delete(connection);
    };
    this.#track(connection.closed.then(ended, ended));
    if (this.#stopping) {
      this.#track(connection.close({ code: "GOING_AWAY" }));
      return undefined;
    }
    tell(this.#onConnection, connection, this.#onError);
    return connection;
  }

  /** The connection, once its handshake is through; `undefined` where that failed, or all places are taken. */
  async #shakeHands(duplex: Duplex): Promise<HtxConnection | undefined> {
    if (this.#halfOpen.size >= this.#maxHalfOpen) {
      const oldest: AbortController | undefined = this.#halfOpen.values().next().value;
      if (oldest !== undefined) {
        this.#halfOpen.delete(oldest);
        oldest.abort(new HtxError("EXCESSIVE_LOAD", "Handshake was dropped: too many are under way"));
      }
    }
    const controller = new AbortController();
    this.#halfOpen.add(controller);
    try {
      await loadSodium();
      const options = { ...this.#options, signal: controller.signal };
      const shaken = await shakeHands(duplex, options);
      if (this.#full) { // others came through meanwhile
        shaken.result.wipe();
        endDuplex(duplex);
        return undefined;
      }
      const connection = openConnection(duplex, options, shaken);
      this.#connections.add(connection);
      return connection;
    } catch (error) {
      tell(this.#onError, error);
      return undefined;
    } finally {
      this.#halfOpen.delete(controller);
    }
  }

  get #full(): boolean {
    return this.#connections.size >= this.#maxConnections;
  }

  /**
   * Stops accepting, refuses new streams, lets the open ones finish, then ends each connection (HTX 1.1 §3).
   * `graceMs` bounds the wait, in ms, after which what is left is closed with GOING_AWAY; without it there is no bound.
   */
  async shutdown(options: { graceMs?: number | undefined } = {}): Promise<void> {
    this.#stop();
    for (const connection of this.#connections) connection.drain().catch(() => {}); // told by `closed`
    if (options.graceMs === undefined) return await this.finished;
    await within(this.finished, options.graceMs);
    for (const connection of this.#connections) this.#track(connection.close({ code: "GOING_AWAY" }));
    await this.finished;
  }

  /** Ends everything at once: peers see their connections break. */
  abort(): void {
    this.#stop();
    for (const connection of this.#connections) connection.abort();
  }

  /** Shuts down, and waits for it: as long as streams take to finish, as {@linkcode HtxServer.shutdown} without a bound. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  #stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    for (const listener of this.#listeners) listener.close();
    for (const controller of this.#halfOpen) {
      controller.abort(new HtxError("GOING_AWAY", "Handshake was dropped: the server is shutting down"));
    }
    this.#finishIfDone();
  }

  async #acceptAll(listener: DuplexListener): Promise<void> {
    const options = { onError: this.#onError, stopping: () => this.#stopping };
    for (;;) {
      const duplex = await acceptNext(listener, options);
      if (duplex === undefined) return;
      this.accept(duplex);
    }
  }

  #track(task: Promise<unknown>): void {
    this.#tasks.add(task);
    task.catch((error) => tell(this.#onError, error)).finally(() => {
      this.#tasks.delete(task);
      this.#finishIfDone();
    });
  }

  #finishIfDone(): void {
    if (this.#stopping && this.#tasks.size === 0) this.#finished.resolve();
  }
}

/**
 * Serves raw streams: `handler` gets each one that a client opens. For HTTP, see `serve()`.
 *
 * @example An echo server, and what it answers
 * ```ts
 * import { connect, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveStreams((stream) => stream.readable.pipeTo(stream.writable), { port: 0 });
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * const stream = await client.createBidirectionalStream();
 * await stream.write(new TextEncoder().encode("hello"), { end: true });
 * assertEquals(new TextDecoder().decode(await stream.read() ?? undefined), "hello");
 * ```
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 * @throws {RangeError} when a bound is out of its range
 */
export function serveStreams(handler: StreamHandler, options: ServeStreamsOptions = {}): HtxServer {
  return new HtxServer(handler, options);
}

function bound(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1) {
    throw new RangeError(`Cannot serve: ${name} is ${value}, not 1 or more`);
  }
  return value;
}

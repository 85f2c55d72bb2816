/**
 * WebSocket: HTX as binary messages of a WebSocket, the form that passes through web servers and browsers. Where one
 * message ends and the next begins means nothing.
 *
 * A `WebSocket` has two weaknesses as a carrier, and both are bounded here. It tells nobody when there is room to
 * send: writes poll `bufferedAmount`. And it cannot be made to wait: what the peer sends beyond the credit it was given
 * ends the duplex. It has no half-close either: `closeWrite` ends it once all is sent, which HTX allows (§3: "EOF in
 * one direction of the duplex ends both").
 *
 * Nor can it be cut off. Once a server's socket was closed, Deno 2.9.6 lets go of it when the peer answers the Close
 * frame, sends anything else, or ends its TCP connection. A peer that stays and keeps silent keeps its socket, for as
 * long as it likes: no call ends it, and `idleTimeout` only ends sockets that were not closed (and pings with a period,
 * which is a pattern of its own). Such sockets are counted, and past a bound no new ones are taken:
 * {@linkcode WebSocketListenerOptions.maxLingering}.
 *
 * Nor does Deno's server bound what one message may come to: it collects all of its fragments before this side sees
 * any, past every bound here, and holds what it has for as long as the socket lingers. A stranger on one connection can
 * fill the memory of the process. On the open internet, let only those upgrade who have shown something first (a ticket,
 * a cookie), and give the process a memory limit of its own. Sockets of the gateway's `nodeFront` have none of these
 * weaknesses: they are bounded, made to wait and cut off. {@linkcode WebSocketListener.upgrade} takes both.
 *
 * This module is browser compatible, save for {@linkcode WebSocketListener.upgrade}.
 *
 * @module
 */

import { timerDelay } from "../core/_timer_delay.ts";
import { deferred, within } from "../core/_deferred.ts";
import { type ByteIo, type Duplex, type DuplexAddr, HtxError } from "../core/mod.ts";
import { ByteQueue } from "./_byte_queue.ts";
import { ioDuplex } from "./duplex.ts";
import type { DuplexListener } from "./listener.ts";

/** The largest message taken and sent, in bytes. */
export const MAX_WEBSOCKET_MESSAGE_LENGTH: number = 1024 ** 2;
/** What may wait beyond the credit given: control frames. */
const CONTROL_ALLOWANCE = 65_536;
/** Bytes of a message that is sent. */
const SEND_LENGTH = 131_072;
/** Bytes that may wait in the socket before a write waits. */
const DEFAULT_SEND_BUFFER = 524_288;
const DEFAULT_WRITE_TIMEOUT_MS = 60_000;
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** How long the closing handshake may take before the end is taken for granted. */
const CLOSE_TIMEOUT_MS = 1_000;
/** The longest pause between two looks at `bufferedAmount`. */
const MAX_POLL_MS = 32;
const DEFAULT_BACKLOG = 256;
const DEFAULT_MAX_LINGERING = 4096;

/** Codes of our own (RFC 6455 §7.4.2 leaves 4000 to 4999 to us): the API refuses 1003 and 1009. */
const CLOSE_NORMAL = 1000;
const CLOSE_TEXT = 4003;
const CLOSE_TOO_LARGE = 4009;

/** What is used of a `WebSocket`: the standard one, or another implementation of it. */
export interface WebSocketLike extends EventTarget {
  /** How messages arrive. */
  binaryType: BinaryType;
  /** 0 connecting, 1 open, 2 closing, 3 closed. */
  readonly readyState: number;
  /** Bytes not yet handed to the network. */
  readonly bufferedAmount: number;
  /** Sends a message; the bytes may be reused at once. */
  send(data: Uint8Array<ArrayBuffer>): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
}

/** Options of {@linkcode webSocketDuplex}. */
export interface WebSocketDuplexOptions {
  /** Where the peer stands. */
  remoteAddr?: DuplexAddr | undefined;
  /** Where this side stands. */
  localAddr?: DuplexAddr | undefined;
  /** Bytes that may wait in the socket before a write waits. @default {524288} */
  sendBuffer?: number | undefined;
  /** How long a write may make no progress, in ms. @default {60000} */
  writeTimeoutMs?: number | undefined;
}

/**
 * A duplex over a `WebSocket`, open or about to be. It must not have received anything yet: call this in the same
 * turn in which the socket was made.
 *
 * A text message, one above 1 MiB, or more than the credit given and 64 KiB waiting to be read, ends it.
 *
 * @example The server's end of an upgraded request
 * ```ts ignore
 * import { webSocketDuplex } from "@betanet/htx/transport";
 *
 * Deno.serve((request, info) => {
 *   const { socket, response } = Deno.upgradeWebSocket(request);
 *   server.accept(webSocketDuplex(socket));
 *   return response;
 * });
 * ```
 */
export function webSocketDuplex(socket: WebSocketLike, options: WebSocketDuplexOptions = {}): Duplex {
  return duplexOver(new WebSocketIo(socket, options), options);
}

function duplexOver(io: WebSocketIo, options: WebSocketDuplexOptions): Duplex {
  const duplex = ioDuplex(io, {
    covert: true,
    localAddr: options.localAddr,
    remoteAddr: options.remoteAddr,
  });
  duplex.limitReceive = (credit) => io.limitReceive(credit);
  return duplex;
}

class WebSocketIo implements ByteIo {
  readonly #socket: WebSocketLike;
  readonly #sendBuffer: number;
  readonly #writeTimeoutMs: number;
  /** Before a session says what it allows: one message of the largest size. */
  #credit: () => number = () => MAX_WEBSOCKET_MESSAGE_LENGTH;
  readonly #received: ByteQueue = new ByteQueue();
  #ended = false;
  #error: unknown;
  #reader: (() => void) | undefined;
  /** Ends a wait of the peer's. */
  #room: (() => void) | undefined;
  readonly #opened: PromiseWithResolvers<void> = deferred();
  readonly #closed: PromiseWithResolvers<void> = deferred();
  #closing: Promise<void> | undefined;
  /** Ends the pauses under way. */
  readonly #pauses: Set<() => void> = new Set();
  readonly #onLinger: ((lingers: boolean) => void) | undefined;
  #lingers = false;

  /** `onLinger` is told when this side has closed the socket, and when it is gone. */
  constructor(
    socket: WebSocketLike,
    options: WebSocketDuplexOptions,
    onLinger?: (lingers: boolean) => void,
  ) {
    this.#socket = socket;
    this.#onLinger = onLinger;
    this.#sendBuffer = options.sendBuffer ?? DEFAULT_SEND_BUFFER;
    this.#writeTimeoutMs = options.writeTimeoutMs ?? DEFAULT_WRITE_TIMEOUT_MS;
    socket.binaryType = "arraybuffer";
    if ("_hold" in socket) socket._hold = () => this.#held();
    this.#opened.promise.catch(() => {}); // told by the write that waits for it
    if (socket.readyState === OPEN) this.#opened.resolve();
    socket.addEventListener("open", () => this.#opened.resolve(), { once: true });
    socket.addEventListener("message", (event) => this.#onMessage(event));
    socket.addEventListener("error", (event) => {
      const message = "message" in event && typeof event.message === "string" ? event.message : "";
      this.#fail(new DOMException(message || "the WebSocket failed", "NetworkError"));
    });
    socket.addEventListener("close", (event) => this.#onClose(event), { once: true });
    if (socket.readyState === CLOSED) this.#onClose(undefined);
  }

  limitReceive(credit: () => number): void {
    this.#credit = credit;
    this.#checkWaiting();
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#received.size === 0) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#reader = resolve);
    }
    const length = this.#received.take(into);
    if (this.#received.size <= CONTROL_ALLOWANCE) this.#room?.();
    return length;
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#socket.readyState === CONNECTING) await this.#opened.promise;
    for (let at = 0; at < data.length; at += SEND_LENGTH) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#socket.readyState !== OPEN) {
        throw new DOMException("the WebSocket is closed", "InvalidStateError");
      }
      const part = data.subarray(at, at + SEND_LENGTH);
      this.#socket.send(onOwnBuffer(part) ? part : part.slice());
      if (this.#socket.bufferedAmount > this.#sendBuffer) await this.#drain(this.#sendBuffer);
    }
  }

  closeWrite(): Promise<void> {
    return this.#closing ??= this.#closeOrderly();
  }

  close(): void {
    this.#received.clear();
    this.#error ??= new HtxError("CLOSED", "Cannot use WebSocket: the duplex was closed");
    this.#end();
    this.#closeSocket();
  }

  async #closeOrderly(): Promise<void> {
    if (this.#socket.readyState === CONNECTING) await this.#opened.promise;
    await this.#drain(0);
    this.#closeSocket(CLOSE_NORMAL);
    await within(this.#closed.promise, CLOSE_TIMEOUT_MS);
    this.#ended = true;
    this.#wake();
  }

  /** Has the peer wait while much waits to be read, where the socket can. */
  #held(): Promise<void> | undefined {
    if (this.#received.size <= CONTROL_ALLOWANCE) return undefined;
    return new Promise((resolve) => this.#room = resolve);
  }

  /** Waits until at most `limit` bytes wait in the socket: there is no event for it, so it looks again and again. */
  async #drain(limit: number): Promise<void> {
    let pause = 1;
    let least = Infinity;
    for (let idle = 0; this.#socket.bufferedAmount > limit;) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#socket.readyState !== OPEN) return;
      const { bufferedAmount } = this.#socket;
      if (bufferedAmount < least) {
        least = bufferedAmount;
        idle = 0;
        pause = 1;
      } else {
        pause = Math.min(pause * 2, MAX_POLL_MS);
      }
      if (idle >= this.#writeTimeoutMs) {
        const error = new HtxError(
          "TIMEOUT",
          `Cannot write: the peer took nothing for ${this.#writeTimeoutMs} ms`,
        );
        this.#fail(error);
        throw error;
      }
      await this.#pause(pause);
      idle += pause;
    }
  }

  /** Waits `ms`, or until the socket is closed; leaves nothing behind. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#pauses.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#pauses.add(wake);
    });
  }

  #onMessage(event: Event): void {
    if (this.#ended || this.#error !== undefined) return;
    const data: unknown = "data" in event ? event.data : undefined;
    if (!(data instanceof ArrayBuffer)) {
      const error = new HtxError("MALFORMED", "Cannot read from WebSocket: a message is text", {
        field: "message",
      });
      return this.#fail(error, CLOSE_TEXT);
    }
    if (data.byteLength > MAX_WEBSOCKET_MESSAGE_LENGTH) {
      const error = new HtxError(
        "MALFORMED",
        `Cannot read from WebSocket: a message of ${data.byteLength} bytes is above ${MAX_WEBSOCKET_MESSAGE_LENGTH}`,
        { field: "message" },
      );
      return this.#fail(error, CLOSE_TOO_LARGE);
    }
    if (data.byteLength === 0) return;
    this.#received.push(new Uint8Array(data));
    this.#checkWaiting();
    this.#wake();
  }

  #checkWaiting(): void {
    const waiting = this.#received.size;
    if (waiting <= CONTROL_ALLOWANCE || this.#error !== undefined) return;
    const bound = this.#credit() + CONTROL_ALLOWANCE;
    if (waiting <= bound) return;
    const error = new HtxError(
      "FLOW_CONTROL_ERROR",
      `Cannot read from WebSocket: ${waiting} bytes wait where the peer had credit for ${bound}`,
    );
    this.#received.clear();
    this.#fail(error, CLOSE_TOO_LARGE);
  }

  #onClose(event: Event | undefined): void {
    const clean = event !== undefined && "wasClean" in event && event.wasClean === true;
    // Without the closing handshake the end is a broken connection; who has ended this side himself does not mind.
    if (!clean && this.#closing === undefined) {
      this.#error ??= new DOMException("the WebSocket ended without a closing handshake", "NetworkError");
    }
    this.#end();
    this.#closed.resolve();
    for (const wake of this.#pauses) wake();
    if (!this.#lingers) return;
    this.#lingers = false;
    this.#onLinger?.(false);
  }

  #fail(error: unknown, code?: number): void {
    this.#error ??= error;
    this.#end();
    this.#closeSocket(code);
  }

  #closeSocket(code?: number): void {
    const { readyState } = this.#socket;
    // A server's socket that is not open yet opens all the same, whatever it was told before.
    if (readyState === CONNECTING) {
      this.#socket.addEventListener("open", () => this.#closeSocket(code), { once: true });
    }
    if (readyState === OPEN && !this.#lingers) {
      this.#lingers = true;
      this.#onLinger?.(true);
    }
    try {
      this.#socket.close(code);
    } catch {
      // where a socket that is not open yet refuses; it is closed once it is
    }
  }

  #end(): void {
    this.#ended = true;
    this.#opened.reject(this.#error ?? new DOMException("the WebSocket is closed", "InvalidStateError"));
    this.#room?.();
    this.#wake();
  }

  #wake(): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.();
  }
}

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;

function onOwnBuffer(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer;
}

/** Options of {@linkcode dialWebSocket}. */
export interface DialWebSocketOptions extends WebSocketDuplexOptions {
  /** Subprotocols offered. @default {none} */
  protocols?: string | string[] | undefined;
  /** Fields of the request, such as a cookie with a ticket: only where the runtime lets them be set (Deno). */
  headers?: HeadersInit | undefined;
  /** For other roots or a proxy (Deno): of `Deno.createHttpClient`. */
  client?: Deno.HttpClient | undefined;
  /** How long connecting may take, in ms. @default {10000} */
  timeoutMs?: number | undefined;
  /** Another implementation of `WebSocket`, for runtimes that have none. @default {the global one} */
  WebSocket?: (new (url: string | URL, protocols?: string | string[]) => WebSocketLike) | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  signal?: AbortSignal | undefined;
}

/**
 * Opens a WebSocket and gives a duplex over it. A ticket in its URL or cookie belongs on `wss:` alone.
 *
 * @example HTX behind a web server
 * ```ts ignore
 * import { connect, dialWebSocket } from "@betanet/htx/transport";
 *
 * const client = await connect(({ signal }) => dialWebSocket("wss://front.example/chat", { signal }), { remoteStatic });
 * ```
 *
 * @throws {SyntaxError} when the URL is none of a WebSocket; as a `DOMException`
 * @throws {HtxError} `CONNECT_FAILED` where it does not open; `UNSUPPORTED` where there is no `WebSocket`
 * @throws the signal's reason
 */
export async function dialWebSocket(url: string | URL, options: DialWebSocketOptions = {}): Promise<Duplex> {
  const { protocols, headers, client, signal, timeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = options;
  const Socket: DialWebSocketOptions["WebSocket"] = options.WebSocket ?? globalThis.WebSocket;
  if (Socket === undefined) {
    throw new HtxError(
      "UNSUPPORTED",
      "Cannot open WebSocket: this runtime has none; pass one as the option WebSocket",
    );
  }
  signal?.throwIfAborted();
  const special = headers !== undefined || client !== undefined;
  const init = {
    ...(protocols !== undefined && { protocols }),
    ...(headers !== undefined && { headers }),
    ...(client !== undefined && { client }),
  };
  // Fields and clients are an addition of the runtime's, which the standard's types do not know.
  const socket: WebSocketLike = special ? Reflect.construct(Socket, [url, init]) : new Socket(url, protocols);
  const where = new URL(url);
  const duplex = webSocketDuplex(socket, {
    remoteAddr: {
      transport: "websocket",
      hostname: where.hostname.replace(/^\[|\]$/g, ""),
      port: Number(where.port || (where.protocol === "wss:" || where.protocol === "https:" ? 443 : 80)),
    },
    ...options,
  });
  const opened = deferred<void>();
  // The URL may hold a ticket in its query: neither it nor its query stands in a message.
  const fail = (why: string) =>
    opened.reject(new HtxError("CONNECT_FAILED", `Cannot open WebSocket to ${where.host}: ${why}`));
  const onError = (event: Event) => {
    fail("message" in event && typeof event.message === "string" ? event.message : "it failed");
  };
  const onClose = () => fail("it was closed");
  const onOpen = () => opened.resolve();
  const onAbort = () => opened.reject(signal?.reason);
  const timer = setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timerDelay(timeoutMs));
  socket.addEventListener("open", onOpen);
  socket.addEventListener("error", onError);
  socket.addEventListener("close", onClose);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await opened.promise;
    return duplex;
  } catch (error) {
    duplex.close?.();
    throw error;
  } finally {
    clearTimeout(timer);
    socket.removeEventListener("open", onOpen);
    socket.removeEventListener("error", onError);
    socket.removeEventListener("close", onClose);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Options of {@linkcode WebSocketListener}. */
export interface WebSocketListenerOptions extends Omit<WebSocketDuplexOptions, "remoteAddr"> {
  /** Sockets that may wait to be accepted; past it new ones are closed. @default {256} */
  backlog?: number | undefined;
  /** Sockets that were closed here and whose peer has not let go; past it no new ones are taken. @default {4096} */
  maxLingering?: number | undefined;
}

/** What a server tells of a request that asks for a WebSocket: the `info` of `Deno.serve`, or of a front of the gateway's. */
export interface UpgradeInfo {
  /** Where the client stands. */
  readonly remoteAddr?: Deno.Addr | { readonly hostname: string; readonly port: number } | undefined;
  /** Answers the upgrade. @default {Deno.upgradeWebSocket} */
  readonly upgradeWebSocket?:
    | ((
      request: Request,
      options?: { maxMessageBytes?: number | undefined },
    ) => { response: Response; socket: WebSocketLike })
    | undefined;
}

/**
 * A listener whose sockets come from elsewhere: whoever answers the upgrade requests, be it a decoy site's server or
 * a gateway, pushes them in.
 *
 * @example A web site with HTX at one of its paths
 * ```ts ignore
 * import { serve, WebSocketListener } from "@betanet/htx/transport";
 *
 * const listener = new WebSocketListener();
 * const server = serve(app, { listeners: [listener] });
 * Deno.serve((request, info) =>
 *   new URL(request.url).pathname === "/chat" && request.headers.get("upgrade") === "websocket"
 *     ? listener.upgrade(request, info)
 *     : site(request)
 * );
 * ```
 */
export class WebSocketListener implements DuplexListener {
  /** Where it listens, as far as it was told. */
  readonly addr: DuplexAddr;
  readonly #options: WebSocketListenerOptions;
  readonly #backlog: number;
  readonly #maxLingering: number;
  readonly #queue: Duplex[] = [];
  readonly #waiters: ((duplex: Duplex | undefined) => void)[] = [];
  #closed = false;
  #lingering = 0;

  /** Makes an empty one. */
  constructor(options: WebSocketListenerOptions = {}) {
    this.#options = options;
    this.#backlog = options.backlog ?? DEFAULT_BACKLOG;
    this.#maxLingering = options.maxLingering ?? DEFAULT_MAX_LINGERING;
    this.addr = { transport: "websocket", ...options.localAddr };
  }

  /** Sockets that were closed here and whose peer has not let go. */
  get lingering(): number {
    return this.#lingering;
  }

  get #refuses(): boolean {
    return this.#closed || this.#queue.length >= this.#backlog || this.#lingering >= this.#maxLingering;
  }

  /**
   * Takes a socket, in the same turn in which it was made. `false`: too many wait or linger or the listener was closed,
   * and so is the socket.
   */
  push(socket: WebSocketLike, options: Pick<WebSocketDuplexOptions, "remoteAddr"> = {}): boolean {
    const all = { ...this.#options, ...options };
    const io = new WebSocketIo(socket, all, (lingers) => this.#lingering += lingers ? 1 : -1);
    if (this.#refuses) {
      io.close();
      return false;
    }
    const duplex = duplexOver(io, all);
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter(duplex);
    else this.#queue.push(duplex);
    return true;
  }

  /**
   * Answers an upgrade request and takes its socket; with 503 where it would take none. `info` is what `Deno.serve` or a
   * front of the gateway's gives with the request: the socket is the front's own where it upgrades, and then bounded, made
   * to wait and cut off (`nodeFront`).
   *
   * @throws {TypeError} when the request does not ask for a WebSocket
   */
  upgrade(request: Request, info: UpgradeInfo = {}): Response {
    if (this.#refuses) return new Response(null, { status: 503 });
    const peer = info.remoteAddr; // gone once the request is upgraded
    const { socket, response } =
      info.upgradeWebSocket?.(request, { maxMessageBytes: MAX_WEBSOCKET_MESSAGE_LENGTH }) ??
        Deno.upgradeWebSocket(request, { idleTimeout: 0 });
    const remoteAddr: DuplexAddr = {
      transport: "websocket",
      ...(peer !== undefined && "hostname" in peer && { hostname: peer.hostname, port: peer.port }),
    };
    this.push(socket, { remoteAddr });
    return response;
  }

  /** The next one; `undefined` once closed. */
  accept(): Promise<Duplex | undefined> {
    const duplex = this.#queue.shift();
    if (duplex !== undefined || this.#closed) return Promise.resolve(duplex);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Takes no more, and closes those that nobody accepted. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const duplex of this.#queue.splice(0)) duplex.close?.();
    for (const waiter of this.#waiters.splice(0)) waiter(undefined);
  }
}

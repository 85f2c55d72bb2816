/**
 * QUIC: HTX on one bidirectional stream of a QUIC connection. Deno has it behind `--unstable-net`; elsewhere calls
 * reject with `UNSUPPORTED`, and `dialWithFallback()` goes over to TCP.
 *
 * A closed UDP port says nothing: dialing ends by a time limit of its own. There is no 0-RTT and no resumption.
 *
 * @module
 */

import { timerDelay } from "../core/_timer_delay.ts";
import { deferred } from "../core/_deferred.ts";
import { type ByteIo, type Duplex, type DuplexAddr, HtxError } from "../core/mod.ts";
import { ioDuplex } from "./duplex.ts";
import type { DuplexListener } from "./listener.ts";
import type { TcpAddress } from "./tcp.ts";

/** The application protocol where nothing else is said. */
const DEFAULT_ALPN: readonly string[] = /* @__PURE__ */ Object.freeze(["htx/1.1"]);
const DEFAULT_TIMEOUT_MS = 4_000;
/** Above the session's own idle timeout, so that QUIC does not end what HTX keeps. */
const IDLE_TIMEOUT_MS = 360_000;
/** How long a client may take from its first packet to its stream, and how many may be that far: past it the oldest is dropped. */
const OPEN_TIMEOUT_MS = 10_000;
const MAX_OPENING = 1024;
/** Connections that may wait to be accepted. */
const BACKLOG = 256;

/** Options of {@linkcode dialQuic}. */
export interface DialQuicOptions {
  /** The name in the certificate. @default {the address's host name} */
  serverName?: string | undefined;
  /** Protocols offered (ALPN). @default {["htx/1.1"]} */
  alpnProtocols?: readonly string[] | undefined;
  /** Roots in PEM, beside those of the system. @default {the system's alone} */
  caCerts?: readonly string[] | undefined;
  /** How long connecting may take, in ms. @default {4000} */
  timeoutMs?: number | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  signal?: AbortSignal | undefined;
}

/** Whether this runtime has QUIC. */
export function quicSupported(): boolean {
  return typeof Deno !== "undefined" && typeof Deno.connectQuic === "function" &&
    typeof Deno.QuicEndpoint === "function";
}

/**
 * Opens a QUIC connection and a stream on it.
 *
 * @throws {HtxError} `UNSUPPORTED` where the runtime has no QUIC; `CONNECT_FAILED` where the server does not answer in
 * time or does not verify
 * @throws the signal's reason
 */
export async function dialQuic(address: TcpAddress, options: DialQuicOptions = {}): Promise<Duplex> {
  requireQuic("dial");
  const { hostname = "127.0.0.1", port } = address;
  const { serverName = hostname, alpnProtocols = DEFAULT_ALPN, caCerts = [], signal } = options;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  signal?.throwIfAborted();
  const stop = deferred<never>();
  stop.promise.catch(() => {});
  const onAbort = () => stop.reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(
    () => stop.reject(new Error(`no answer within ${timeoutMs} ms`)),
    timerDelay(timeoutMs),
  );
  const endpoint = new Deno.QuicEndpoint({ hostname: hostname.includes(":") ? "::" : "0.0.0.0", port: 0 });
  try {
    const connecting = Deno.connectQuic<false>({
      hostname,
      port,
      serverName,
      alpnProtocols: [...alpnProtocols],
      caCerts: [...caCerts],
      endpoint,
      maxIdleTimeout: IDLE_TIMEOUT_MS,
      maxConcurrentBidirectionalStreams: 0,
      maxConcurrentUnidirectionalStreams: 0,
    });
    connecting.catch(() => {}); // may fail long after the time limit
    const conn = await Promise.race([connecting, stop.promise]);
    conn.closed.catch(() => {}); // shows in reads and writes
    const stream = await Promise.race([conn.createBidirectionalStream(), stop.promise]);
    const io = new QuicIo(stream, () => {
      conn.close();
      endpoint.close();
    });
    return ioDuplex(io, { covert: true, remoteAddr: addressOf(conn.remoteAddr) });
  } catch (cause) {
    endpoint.close({ closeCode: 0, reason: "" });
    signal?.throwIfAborted();
    throw new HtxError(
      "CONNECT_FAILED",
      `Cannot connect to ${hostname}:${port} with QUIC: ${
        cause instanceof Error ? cause.message : String(cause)
      }`,
      { cause },
    );
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Options of {@linkcode listenQuic}. */
export interface ListenQuicOptions {
  /** The certificate chain, in PEM. */
  cert: string;
  /** Its private key, in PEM. */
  key: string;
  /** Protocols taken (ALPN). @default {["htx/1.1"]} */
  alpnProtocols?: readonly string[] | undefined;
}

/**
 * Listens with QUIC: the first stream that a client opens on a connection is the duplex, and it cannot open another.
 *
 * @throws {HtxError} `UNSUPPORTED` where the runtime has no QUIC
 * @throws {Deno.errors.AddrInUse} when the port is taken
 */
export function listenQuic(address: TcpAddress, options: ListenQuicOptions): DuplexListener {
  requireQuic("listen");
  return new QuicDuplexListener(address, options);
}

class QuicDuplexListener implements DuplexListener {
  readonly addr: DuplexAddr;
  readonly #endpoint: Deno.QuicEndpoint;
  readonly #listener: Deno.QuicListener;
  readonly #live: Set<Deno.QuicConn> = new Set();
  /** Connections whose stream has not come yet, oldest first. */
  readonly #opening: Set<Deno.QuicConn> = new Set();
  readonly #queue: Duplex[] = [];
  readonly #waiters: (() => void)[] = [];
  #closed = false;

  constructor(address: TcpAddress, options: ListenQuicOptions) {
    const { hostname = "127.0.0.1", port } = address;
    const { cert, key, alpnProtocols = DEFAULT_ALPN } = options;
    this.#endpoint = new Deno.QuicEndpoint({ hostname, port });
    this.#listener = this.#endpoint.listen({
      cert,
      key,
      alpnProtocols: [...alpnProtocols],
      maxIdleTimeout: IDLE_TIMEOUT_MS,
      maxConcurrentBidirectionalStreams: 1,
      maxConcurrentUnidirectionalStreams: 0,
    });
    this.addr = addressOf(this.#endpoint.addr);
    this.#takeAll();
  }

  async accept(): Promise<Duplex | undefined> {
    for (;;) {
      const duplex = this.#queue.shift();
      if (duplex !== undefined || this.#closed) return duplex;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const duplex of this.#queue.splice(0)) duplex.close?.();
    for (const conn of this.#opening) drop(conn);
    this.#listener.stop();
    this.#releaseIfDone();
    this.#wake();
  }

  async #takeAll(): Promise<void> {
    while (!this.#closed) {
      let incoming: Deno.QuicIncoming;
      try {
        incoming = await this.#listener.incoming();
      } catch {
        this.#closed = true; // stopped, or the socket is gone
        this.#wake();
        return;
      }
      if (this.#closed || this.#queue.length >= BACKLOG) incoming.refuse();
      else this.#take(incoming);
    }
  }

  /** Handshake and first stream, while others are taken. */
  async #take(incoming: Deno.QuicIncoming): Promise<void> {
    const [oldest] = this.#opening;
    if (this.#opening.size >= MAX_OPENING && oldest !== undefined) {
      this.#opening.delete(oldest);
      drop(oldest);
    }
    let conn: Deno.QuicConn;
    try {
      // In hand before its handshake is through: what only comes after it cannot be dropped, and a client that sends
      // one packet (from an address that need not be its own) would hold its place for as long as the idle timeout.
      conn = incoming.accept({ zeroRtt: true });
    } catch {
      return; // it left meanwhile
    }
    this.#live.add(conn);
    this.#opening.add(conn);
    conn.closed.catch(() => {}).finally(() => {
      this.#live.delete(conn);
      this.#releaseIfDone();
    });
    const timer = setTimeout(() => drop(conn), OPEN_TIMEOUT_MS);
    try {
      await conn.handshake; // nothing is sent, and nothing looked at, before it is through
      const streams = conn.incomingBidirectionalStreams.getReader();
      const { value: stream } = await streams.read();
      streams.releaseLock();
      if (stream === undefined || this.#closed) throw new Error("no stream came");
      const io = new QuicIo(stream, () => conn.close());
      this.#queue.push(
        ioDuplex(io, { covert: true, localAddr: this.addr, remoteAddr: addressOf(conn.remoteAddr) }),
      );
      this.#wake();
    } catch {
      drop(conn); // a client that did not come through
    } finally {
      clearTimeout(timer);
      this.#opening.delete(conn);
    }
  }

  /** The socket is shared: it goes when the listener is closed and the last connection has ended. */
  #releaseIfDone(): void {
    if (this.#closed && this.#live.size === 0) this.#endpoint.close({ closeCode: 0, reason: "" });
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}

function drop(conn: Deno.QuicConn): void {
  conn.close({ closeCode: 0, reason: "" });
}

/** Reads and writes of a QUIC stream, and the end of the connection that it is alone on. */
class QuicIo implements ByteIo {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #closeAll: () => void;
  #rest: Uint8Array | undefined;
  #closed = false;
  #ended: Promise<void> | undefined;

  constructor(stream: Deno.QuicBidirectionalStream, closeAll: () => void) {
    this.#reader = stream.readable.getReader();
    this.#writer = stream.writable.getWriter();
    this.#reader.closed.catch(() => {}); // a pending read or write tells it
    this.#writer.closed.catch(() => {});
    this.#closeAll = closeAll;
  }

  async read(into: Uint8Array): Promise<number | null> {
    if (this.#rest === undefined) {
      const { value, done } = await this.#reader.read();
      if (done) return null;
      this.#rest = value;
    }
    const length = Math.min(into.length, this.#rest.length);
    into.set(this.#rest.subarray(0, length));
    this.#rest = length < this.#rest.length ? this.#rest.subarray(length) : undefined;
    return length;
  }

  async write(data: Uint8Array): Promise<void> {
    await this.#writer.write(onOwnBuffer(data) ? data : data.slice());
  }

  closeWrite(): Promise<void> {
    return this.#ended ??= this.#writer.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.cancel().catch(() => {}); // either may have ended before, which is as good
    if (this.#ended === undefined) this.#writer.abort().catch(() => {});
    try {
      this.#closeAll();
    } catch {
      // closed before
    }
  }
}

function onOwnBuffer(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer;
}

function addressOf(addr: Deno.NetAddr): DuplexAddr {
  return { transport: "quic", hostname: addr.hostname, port: addr.port };
}

function requireQuic(verb: string): void {
  if (quicSupported()) return;
  throw new HtxError(
    "UNSUPPORTED",
    `Cannot ${verb} with QUIC: this runtime has none; with Deno, start it with --unstable-net`,
  );
}

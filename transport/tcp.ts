/**
 * TCP: HTX in the clear of a network (its contents are sealed, its shape is not). Nagle's algorithm is off on both
 * ends: the engine gathers what belongs together itself.
 *
 * @module
 */

import { timerDelay } from "../core/_timer_delay.ts";
import { type ByteIo, type Duplex, type DuplexAddr, HtxError, loadSodium } from "../core/mod.ts";
import { ioDuplex, type IoDuplexOptions } from "./duplex.ts";
import type { DuplexListener } from "./listener.ts";

/** Where to dial or listen. */
export interface TcpAddress {
  /** Host name or IP address. @default {"127.0.0.1"} */
  hostname?: string | undefined;
  /** Port number; 0 lets the system choose when listening. */
  port: number;
}

const DEFAULT_TIMEOUT_MS = 10_000;

/** Options of {@linkcode dialTcp}. */
export interface DialTcpOptions {
  /** How long connecting may take, in ms. @default {10000} */
  timeoutMs?: number | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  signal?: AbortSignal | undefined;
}

/**
 * Opens a TCP connection.
 *
 * @example A duplex to a server
 * ```ts ignore
 * import { dialTcp } from "@betanet/htx/transport";
 *
 * const duplex = await dialTcp({ hostname: "127.0.0.1", port: 4433 });
 * ```
 *
 * @throws {HtxError} `CONNECT_FAILED`; `cause` is the system's error. `UNSUPPORTED` where the runtime is not Deno
 * @throws the signal's reason
 */
export async function dialTcp(address: TcpAddress, options: DialTcpOptions = {}): Promise<Duplex> {
  requireDeno("dial with TCP", OPEN_YOURSELF);
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  const stop = new AbortController();
  const onAbort = () => stop.abort(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  // The system's own limit is two minutes and more.
  const timer = setTimeout(() => {
    const { hostname = "127.0.0.1", port } = address;
    const why = `Cannot connect to ${hostname}:${port}: no answer within ${timeoutMs} ms`;
    stop.abort(new HtxError("CONNECT_FAILED", why));
  }, timerDelay(timeoutMs));
  try {
    return connDuplex(await dialTcpConn(address, stop.signal), "tcp");
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** The connection of {@linkcode dialTcp}, for carriers on top of TCP; without a time limit of its own. */
export async function dialTcpConn(address: TcpAddress, signal: AbortSignal): Promise<Deno.TcpConn> {
  const { hostname = "127.0.0.1", port } = address;
  signal.throwIfAborted();
  // Begun before anything is awaited: the kernel connects while the caller computes its first message.
  const loaded = loadSodium();
  let conn: Deno.TcpConn;
  try {
    conn = await Deno.connect({ hostname, port, signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new HtxError("CONNECT_FAILED", `Cannot connect to ${hostname}:${port}: ${reasonOf(cause)}`, {
      cause,
    });
  }
  conn.setNoDelay(true);
  await loaded;
  return conn;
}

/**
 * Listens on TCP.
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 * @throws {HtxError} `UNSUPPORTED` where the runtime is not Deno
 */
export function listenTcp(address: TcpAddress): DuplexListener {
  requireDeno(
    "listen with TCP",
    "give serve() listeners of its own, or none ([]) and what arrives to server.accept()",
  );
  const { hostname = "127.0.0.1", port } = address;
  const listener = Deno.listen({ hostname, port });
  return new ConnListener(listener, "tcp", (conn) => {
    conn.setNoDelay(true);
    return connDuplex(conn, "tcp");
  });
}

/** A listener of the runtime's as a {@linkcode DuplexListener}. */
export class ConnListener<C extends Deno.Conn> implements DuplexListener {
  /** Where it listens. */
  readonly addr: DuplexAddr;
  readonly #listener: Deno.Listener<C>;
  readonly #wrap: (conn: C) => Duplex;

  /** `wrap` makes the duplex of a connection; what it throws drops that connection alone. */
  constructor(listener: Deno.Listener<C>, transport: string, wrap: (conn: C) => Duplex) {
    this.#listener = listener;
    this.#wrap = wrap;
    this.addr = addressOf(listener.addr, transport);
  }

  /** The next connection; `undefined` once closed. */
  async accept(): Promise<Duplex | undefined> {
    for (;;) {
      let conn: C;
      try {
        conn = await this.#listener.accept();
      } catch (error) {
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) {
          return undefined;
        }
        throw error;
      }
      try {
        return this.#wrap(conn);
      } catch {
        closeQuietly(conn); // the peer left while it was being taken
      }
    }
  }

  /** Takes no more connections. Idempotent. */
  close(): void {
    closeQuietly(this.#listener);
  }
}

/** What to do about dialing where there is no Deno. */
export const OPEN_YOURSELF = "give connect() a function that opens a duplex, such as dialWebSocket()";

/** Sockets are Deno's; where it is not, whoever calls has to bring what carries the bytes. */
export function requireDeno(verb: string, instead: string): void {
  if (typeof Deno !== "undefined") return;
  throw new HtxError("UNSUPPORTED", `Cannot ${verb}: this runtime is not Deno; ${instead}`);
}

/** A connection of the runtime's as a {@linkcode Duplex}, with half-close in both directions. */
export function connDuplex(
  conn: Deno.Conn,
  transport: string,
  options: Pick<IoDuplexOptions, "covert"> = {},
): Duplex {
  return ioDuplex(new ConnIo(conn), {
    ...options,
    localAddr: addressOf(conn.localAddr, transport),
    remoteAddr: addressOf(conn.remoteAddr, transport),
  });
}

/** `read`, `write` and `closeWrite` of a connection: its own web streams have no half-close. */
class ConnIo implements ByteIo {
  readonly #conn: Deno.Conn;
  #closed = false;

  constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#conn.read(into);
  }

  async write(data: Uint8Array): Promise<void> {
    let written = await this.#conn.write(data);
    while (written < data.length) written += await this.#conn.write(data.subarray(written));
  }

  closeWrite(): Promise<void> {
    return this.#conn.closeWrite();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeQuietly(this.#conn);
  }
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error; // closed before
  }
}

function addressOf(addr: Deno.Addr, transport: string): DuplexAddr {
  return "hostname" in addr ? { transport, hostname: addr.hostname, port: addr.port } : { transport };
}

function reasonOf(cause: unknown): string {
  if (cause instanceof Deno.errors.ConnectionRefused) return "connection refused; is the server running?";
  return cause instanceof Error ? cause.message : String(cause);
}

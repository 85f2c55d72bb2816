/**
 * TLS: HTX inside an ordinary TLS connection. Certificates are verified, always: there is no option that turns
 * that off, only ones that ask for more (other roots, one certificate alone).
 *
 * Limitations of the runtime: neither end can see an exporter, so there is no channel binding here. Sessions are never
 * resumed. A dial that is given up during the TLS handshake leaves its socket to the runtime, which lets go of it when
 * the server does. Of a client whose TCP connection ends without TLS's own end, a listener may lose the last bytes,
 * which a session calls a truncation in any case. A listener whose process ran out of file descriptors accepts nobody
 * any more (Deno 2.9.6 tells nobody either): such a process has to be started anew, with a higher limit.
 *
 * @module
 */

import { deferred } from "../core/_deferred.ts";
import { holdReading } from "../core/_hold_reading.ts";
import { timerDelay } from "../core/_timer_delay.ts";
import type { Socket } from "node:net";
import type { ConnectionOptions, Server, TlsOptions, TLSSocket } from "node:tls";
import {
  type ByteIo,
  type Bytes,
  type Duplex,
  type DuplexAddr,
  fromHex,
  HtxError,
  toHex,
} from "../core/mod.ts";
import { ByteQueue } from "./_byte_queue.ts";
import { ioDuplex } from "./duplex.ts";
import type { DuplexListener } from "./listener.ts";
import { connDuplex, dialTcpConn, OPEN_YOURSELF, requireDeno, type TcpAddress } from "./tcp.ts";

/** What a TLS client offers and a server takes where nothing else is said: an ordinary web connection. */
const DEFAULT_ALPN: readonly string[] = /* @__PURE__ */ Object.freeze(["http/1.1"]);
const DEFAULT_TIMEOUT_MS = 10_000;
const SHA256_LENGTH = 32;

/** Options of {@linkcode dialTls}. */
export interface DialTlsOptions {
  /** The name in the certificate, and in the first message. @default {the address's host name} */
  serverName?: string | undefined;
  /** Protocols offered (ALPN), in order; they stand in the clear. @default {["http/1.1"]} */
  alpnProtocols?: readonly string[] | undefined;
  /** Roots in PEM, beside those of the system. @default {the system's alone} */
  caCerts?: readonly string[] | undefined;
  /**
   * The one certificate that is taken, in PEM: no other will do, even one that a root vouches for. It may be
   * self-signed. @default {whatever the roots vouch for}
   */
  certificate?: string | undefined;
  /**
   * SHA-256 of the one certificate that is taken, in hexadecimal, with or without colons. It comes on top of the
   * verification: a self-signed certificate needs `certificate` or `caCerts`, too. @default {none}
   */
  fingerprint?: string | undefined;
  /** How long connecting and the TLS handshake may take, in ms. @default {10000} */
  timeoutMs?: number | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  signal?: AbortSignal | undefined;
}

/**
 * Opens a TLS connection.
 *
 * @example A client of HTX over TLS, whose server has a self-signed certificate
 * ```ts ignore
 * import { connect, dialTls } from "@betanet/htx/transport";
 *
 * const certificate = await Deno.readTextFile("server.pem");
 * const client = await connect(
 *   ({ signal }) => dialTls({ hostname: "front.example", port: 443 }, { certificate, signal }),
 *   { remoteStatic },
 * );
 * ```
 *
 * @throws {HtxError} `CONNECT_FAILED` where the server cannot be reached or does not verify; `cause` says why.
 * `UNSUPPORTED` where the runtime is not Deno
 * @throws {TypeError} when `fingerprint` or `certificate` cannot be parsed
 * @throws the signal's reason
 */
export async function dialTls(address: TcpAddress, options: DialTlsOptions = {}): Promise<Duplex> {
  const { hostname = "127.0.0.1", port } = address;
  const pin = await pinOf(options);
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const caCerts = [
    ...options.caCerts ?? [],
    ...options.certificate === undefined ? [] : [options.certificate],
  ];
  const settings: TlsSettings = {
    serverName: options.serverName ?? hostname,
    alpnProtocols: [...options.alpnProtocols ?? DEFAULT_ALPN],
    caCerts,
  };
  const { signal } = options;
  signal?.throwIfAborted();
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(new Error(`no answer within ${timeoutMs} ms`)),
    timerDelay(timeoutMs),
  );
  const either = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
  try {
    if (pin !== undefined) return await dialPinned(hostname, port, settings, pin, either);
    return await dialVerified(hostname, port, settings, either);
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof HtxError && !late.signal.aborted) throw cause;
    const why = late.signal.aborted ? late.signal.reason : cause;
    const told = why instanceof Error ? why.message : String(why);
    const hint = options.certificate === undefined && UNVOUCHED.test(told)
      ? "; a self-signed certificate is given as the option certificate"
      : "";
    throw new HtxError("CONNECT_FAILED", `Cannot connect to ${hostname}:${port} with TLS: ${told}${hint}`, {
      cause: why,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** How the runtime names certificates that no root vouches for: rustls, which `Deno.startTls` is made of, and Node's words. */
const UNVOUCHED = /UnknownIssuer|CaUsedAsEndEntity|self-signed/;

interface TlsSettings {
  readonly serverName: string;
  readonly alpnProtocols: string[];
  readonly caCerts: string[];
}

/** Connect, Nagle off, then TLS: a TLS connection of Deno's has no `setNoDelay` of its own. */
async function dialVerified(
  hostname: string,
  port: number,
  settings: TlsSettings,
  signal: AbortSignal,
): Promise<Duplex> {
  requireDeno("dial with TLS", OPEN_YOURSELF);
  const tcp = await dialTcpConn({ hostname, port }, signal);
  const { serverName, alpnProtocols, caCerts } = settings;
  let conn: Deno.TlsConn;
  try {
    conn = await Deno.startTls(tcp, { hostname: serverName, alpnProtocols, caCerts });
  } catch (error) {
    closeQuietly(tcp);
    throw error;
  }
  const onAbort = () => closeQuietly(conn);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    await conn.handshake(); // now, so that a certificate that does not verify shows here
    signal.throwIfAborted();
  } catch (error) {
    closeQuietly(conn);
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  return connDuplex(conn, "tls", { covert: true });
}

/** `node:tls` shows the peer's certificate, which Deno's own connection does not. */
async function dialPinned(
  hostname: string,
  port: number,
  settings: TlsSettings,
  pin: Bytes,
  signal: AbortSignal,
): Promise<Duplex> {
  const { serverName, alpnProtocols, caCerts } = settings;
  const tls = globalThis.process?.getBuiltinModule?.("node:tls");
  const net = globalThis.process?.getBuiltinModule?.("node:net");
  if (tls === undefined || net === undefined) {
    throw new HtxError("UNSUPPORTED", "Cannot pin a certificate: this runtime has no node:tls");
  }
  const opened = deferred<void>();
  // Made here rather than by `tls.connect()`, which shows it to nobody.
  const carrier = net.connect({ host: hostname, port, allowHalfOpen: true });
  const connection: ConnectionOptions & { allowHalfOpen: boolean } = {
    socket: carrier,
    servername: isIpAddress(serverName) ? "" : serverName,
    checkServerIdentity: (_name, certificate) => tls.checkServerIdentity(serverName, certificate),
    ALPNProtocols: alpnProtocols,
    ...(caCerts.length > 0 && { ca: caCerts }),
    allowHalfOpen: true,
  };
  const socket: TLSSocket = tls.connect(connection);
  const onError = (error: Error) => opened.reject(error);
  const onAbort = () => opened.reject(signal.reason);
  carrier.on("error", onError);
  socket.on("error", onError);
  socket.once("secureConnect", () => opened.resolve());
  socket.once("close", () => opened.reject(new Error("the server ended the connection")));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    await opened.promise;
    const shown = socket.getPeerCertificate().fingerprint256;
    if (!socket.authorized || shown === undefined || plainHex(shown) !== toHex(pin)) {
      throw new Error("the certificate is not the pinned one");
    }
  } catch (error) {
    socket.destroy();
    carrier.destroy();
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  carrier.setNoDelay(true);
  return socketDuplex(socket, carrier);
}

/** `carrier` is the TCP connection below, where it is known. */
function socketDuplex(socket: TLSSocket, carrier?: Socket): Duplex {
  const address = (host: string | undefined, number: number | undefined): DuplexAddr => ({
    transport: "tls",
    ...(host !== undefined && { hostname: host }),
    ...(number !== undefined && { port: number }),
  });
  return ioDuplex(new NodeSocketIo(socket, carrier), {
    covert: true,
    localAddr: address(socket.localAddress, socket.localPort),
    remoteAddr: address(socket.remoteAddress, socket.remotePort),
  });
}

/** Bytes that wait to be read before the peer has to keep the rest. */
const MAX_WAITING = 65_536;

/**
 * Reads and writes of a socket of `node:tls`.
 *
 * Its data flows, and past a bound its carrier is held up: a TLS socket of Deno 2.9.6 that is paused itself keeps all that
 * comes, and may never tell the end that comes behind it.
 */
class NodeSocketIo implements ByteIo {
  readonly #socket: TLSSocket;
  readonly #carrier: Socket | undefined;
  readonly #received: ByteQueue = new ByteQueue();
  #held = false;
  #error: Error | undefined;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(socket: TLSSocket, carrier: Socket | undefined) {
    this.#socket = socket;
    this.#carrier = carrier;
    const wake = () => {
      this.#wake?.();
      this.#wake = undefined;
    };
    socket.on("data", (chunk: Uint8Array) => {
      this.#received.push(chunk);
      if (this.#received.size > MAX_WAITING) this.#hold(true);
      wake();
    });
    socket.on("end", () => {
      this.#ended = true;
      wake();
    });
    socket.on("error", (error: Error) => {
      this.#error ??= error;
      wake();
    });
    socket.on("close", () => {
      if (!this.#ended) this.#error ??= new Error("the connection was closed");
      wake();
    });
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#received.size === 0) {
      this.#hold(false);
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#received.take(into);
  }

  write(data: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = deferred<void>();
    this.#socket.write(data, (error) => error ? reject(error) : resolve());
    return promise;
  }

  closeWrite(): Promise<void> {
    const { promise, resolve } = deferred<void>();
    if (this.#socket.destroyed) resolve();
    else this.#socket.end(() => resolve());
    return promise;
  }

  close(): void {
    this.#received.clear();
    this.#socket.destroy();
  }

  #hold(held: boolean): void {
    if (held === this.#held) return;
    this.#held = held;
    if (holdReading(this.#carrier, held)) return;
    if (held) this.#socket.pause();
    else this.#socket.resume();
  }
}

/** Options of {@linkcode listenTls}. */
export interface ListenTlsOptions {
  /** The certificate chain, in PEM. */
  cert: string;
  /** Its private key, in PEM. */
  key: string;
  /** Protocols taken (ALPN). @default {["http/1.1"]} */
  alpnProtocols?: readonly string[] | undefined;
  /** The oldest version of TLS that is taken. @default {"TLSv1.3"} */
  minVersion?: "TLSv1.2" | "TLSv1.3" | undefined;
  /** How long a client may take for the TLS handshake, in ms. @default {10000} */
  handshakeTimeoutMs?: number | undefined;
}

/**
 * Listens with TLS: TLS 1.3 alone unless `minVersion` says otherwise, without Nagle's algorithm. (It stands on
 * `node:tls`, since `Deno.listenTls` can do neither.)
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 * @throws {TypeError} when certificate or key cannot be parsed, or do not belong together
 * @throws {HtxError} `UNSUPPORTED` where the runtime has no `node:tls`
 */
export async function listenTls(address: TcpAddress, options: ListenTlsOptions): Promise<DuplexListener> {
  const { hostname = "127.0.0.1", port } = address;
  const { cert, key, alpnProtocols = DEFAULT_ALPN, minVersion = "TLSv1.3" } = options;
  const tls = globalThis.process?.getBuiltinModule?.("node:tls");
  if (tls === undefined) {
    throw new HtxError("UNSUPPORTED", "Cannot listen with TLS: this runtime has no node:tls");
  }
  requireCertificate(cert, key);
  const settings: TlsOptions = {
    cert,
    key,
    ALPNProtocols: [...alpnProtocols],
    minVersion,
    allowHalfOpen: true,
    noDelay: true,
    handshakeTimeout: options.handshakeTimeoutMs ?? DEFAULT_TIMEOUT_MS,
  };
  const server = tls.createServer(settings);
  const listening = deferred<void>();
  server.once("error", (error) => listening.reject(error));
  server.listen(port, hostname, () => listening.resolve());
  try {
    await listening.promise;
  } catch (error) {
    const inUse = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    if (inUse && typeof Deno !== "undefined") {
      throw new Deno.errors.AddrInUse(error.message, { cause: error });
    }
    throw error;
  }
  return new TlsListener(server);
}

/** Connections that may wait to be accepted, and TLS handshakes that may be under way. */
const BACKLOG = 256;
const MAX_HANDSHAKES = 1024;

class TlsListener implements DuplexListener {
  readonly addr: DuplexAddr;
  readonly #server: Server;
  readonly #handshakes: Map<string, Socket> = new Map();
  readonly #queue: Duplex[] = [];
  readonly #waiters: ((duplex: Duplex | undefined) => void)[] = [];
  #closed = false;

  constructor(server: Server) {
    this.#server = server;
    const bound = server.address();
    this.addr = bound === null || typeof bound === "string"
      ? { transport: "tls" }
      : { transport: "tls", hostname: bound.address, port: bound.port };
    server.on("error", () => {}); // one connection's trouble; `accept` goes on
    // Whoever speaks no TLS has had TLS's own answer by then; nobody else ends the connection, and whoever takes too
    // long would keep it.
    server.on("tlsClientError", (_error, socket) => socket.destroy());
    server.on("connection", (socket) => this.#begin(socket));
    server.on("secureConnection", (socket) => this.#take(socket));
  }

  accept(): Promise<Duplex | undefined> {
    const duplex = this.#queue.shift();
    if (duplex !== undefined || this.#closed) return Promise.resolve(duplex);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#server.close();
    for (const socket of this.#handshakes.values()) socket.destroy();
    for (const duplex of this.#queue.splice(0)) duplex.close?.();
    for (const waiter of this.#waiters.splice(0)) waiter(undefined);
  }

  /** A TCP connection whose TLS handshake begins. */
  #begin(socket: Socket): void {
    const peer = `${socket.remoteAddress} ${socket.remotePort}`;
    const [oldest] = this.#handshakes.values();
    if (this.#handshakes.size >= MAX_HANDSHAKES) oldest?.destroy();
    this.#handshakes.set(peer, socket);
    socket.once("close", () => {
      if (this.#handshakes.get(peer) === socket) this.#handshakes.delete(peer);
    });
  }

  #take(socket: TLSSocket): void {
    const peer = `${socket.remoteAddress} ${socket.remotePort}`;
    const carrier = this.#handshakes.get(peer);
    this.#handshakes.delete(peer);
    if (this.#closed || this.#queue.length >= BACKLOG) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    const duplex = socketDuplex(socket, carrier);
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter(duplex);
    else this.#queue.push(duplex);
  }
}

/** `node:tls` finds out about a bad certificate when the first client comes. */
function requireCertificate(cert: string, key: string): void {
  const crypto = globalThis.process.getBuiltinModule("node:crypto");
  let fits: boolean;
  try {
    fits = new crypto.X509Certificate(cert).checkPrivateKey(crypto.createPrivateKey(key));
  } catch (cause) {
    throw new TypeError("Cannot listen with TLS: certificate or key are not PEM", { cause });
  }
  if (!fits) throw new TypeError("Cannot listen with TLS: the key is not the certificate's");
}

/**
 * SHA-256 of a certificate in PEM (the first one in the text), in lower-case hexadecimal: what `fingerprint` takes.
 *
 * @throws {TypeError} when there is no certificate in the text
 */
export async function certificateFingerprint(pem: string): Promise<string> {
  const body = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/.exec(pem)?.[1];
  if (body === undefined) throw new TypeError("Cannot read certificate: the text has none in PEM");
  const der = Uint8Array.from(atob(body.replace(/\s/g, "")), (character) => character.charCodeAt(0));
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", der)));
}

async function pinOf(options: DialTlsOptions): Promise<Bytes | undefined> {
  const { certificate, fingerprint } = options;
  if (certificate === undefined && fingerprint === undefined) return undefined;
  const digits = fingerprint === undefined ? undefined : plainHex(fingerprint);
  if (digits !== undefined && !(/^[0-9a-f]*$/.test(digits) && digits.length === 2 * SHA256_LENGTH)) {
    throw new TypeError(
      `Cannot pin certificate: the fingerprint is not ${2 * SHA256_LENGTH} hexadecimal digits`,
    );
  }
  const pin = digits === undefined ? undefined : fromHex(digits);
  if (certificate === undefined) return pin;
  const known = await certificateFingerprint(certificate);
  if (pin !== undefined && toHex(pin) !== known) {
    throw new TypeError("Cannot pin certificate: the fingerprint is not the certificate's");
  }
  return fromHex(known);
}

function plainHex(fingerprint: string): string {
  return fingerprint.replaceAll(":", "").toLowerCase();
}

/** Whether a name is an IP address: those do not stand in a TLS client's first message (RFC 6066 §3). */
function isIpAddress(name: string): boolean {
  return name.includes(":") || /^\d+(\.\d+){3}$/.test(name);
}

function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error; // closed before
  }
}

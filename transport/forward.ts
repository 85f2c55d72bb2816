/**
 * Forwarding: what connects to a local TCP port comes out at a TCP target on the far side, one HTX stream for each
 * connection (`ssh -L` for HTX).
 *
 * A stream begins with the target, then carries the bytes of the connection in both directions:
 *
 *     0          2
 *     +----------+----------------------+---------
 *     | length   | "tcp:host:port"      | bytes …
 *     | uint16   | UTF-8, 7..512 bytes  |
 *     +----------+----------------------+---------
 *
 * **(choice: nothing comes back before the target's own bytes, which saves a round trip and suits protocols whose
 * server speaks first. `tcp:` leaves room for other kinds. IPv6 addresses stand in brackets.)** A target that is not allowed
 * resets the stream with REFUSED, one that cannot be reached with INTERNAL_ERROR, a header that does not parse with
 * PROTOCOL_ERROR. An end of one direction crosses as such, and leaves the other open.
 *
 * Limitation of the runtime: it cannot reset a TCP connection, so one that breaks on the far side, or in between, ends
 * here as if it had ended well. A protocol that takes the end of a connection for the end of its data cannot tell.
 *
 * @module
 */

import { timerDelay } from "../core/_timer_delay.ts";
import {
  type ByteIo,
  type Bytes,
  concat,
  type Duplex,
  type DuplexAddr,
  fromUtf8,
  HtxError,
  type HtxStream,
  releaseBytes,
  utf8,
} from "../core/mod.ts";
import { acceptNext } from "./_accept.ts";
import { duplexIo } from "./_duplex_io.ts";
import { racedDial } from "./_raced_dial.ts";
import { tell } from "../core/_tell.ts";
import type { StreamHandler } from "./server.ts";
import { dialTcp, listenTcp, type TcpAddress } from "./tcp.ts";

const MAX_HEADER_LENGTH = 512;
const HEADER_TIMEOUT_MS = 10_000;
const DIAL_TIMEOUT_MS = 10_000;
const BUFFER_LENGTH = 65_536;
const DEFAULT_MAX_CONNECTIONS = 256;
const SCHEME = "tcp:";

/** A TCP target. */
export interface ForwardTarget {
  /** Host name or IP address, in lower case, without brackets. */
  readonly hostname: string;
  /** Port number, 1 to 65535. */
  readonly port: number;
}

/** Options of {@linkcode forward}. */
export interface ForwardOptions {
  /** Where to listen. @default {127.0.0.1, a port that the system chooses} */
  listen?: Partial<TcpAddress> | undefined;
  /** The way to the far side: an `HtxClient` or an `HtxConnection`. */
  client: { createBidirectionalStream(options?: { signal?: AbortSignal | undefined }): Promise<HtxStream> };
  /** Where it comes out: `host:port`, as the far side sees it. */
  target: string;
  /** Connections at once; past it new ones wait. @default {256} */
  maxConnections?: number | undefined;
  /** Told why a connection broke, or could not be accepted. @default {nobody is: the local end sees it end} */
  onError?: ((error: unknown) => void) | undefined;
  /** Ends it at once, as {@linkcode Forwarder.close} does. @default {none} */
  signal?: AbortSignal | undefined;
}

/** A running forward. `await using` ends it. */
export interface Forwarder extends AsyncDisposable {
  /** Where it listens. */
  readonly addr: DuplexAddr;
  /** Connections open now. */
  readonly connections: number;
  /** Settles when it has ended. */
  readonly finished: Promise<void>;
  /**
   * Takes no more connections, and has ended when those that are open have; `graceMs` bounds the wait, in ms, then they
   * break. Without it there is no bound.
   */
  shutdown(options?: { graceMs?: number | undefined }): Promise<void>;
  /** Takes no more connections and breaks those that are open. */
  close(): Promise<void>;
}

/**
 * Listens on a local port, and takes each connection through a stream of its own to `target` on the far side.
 *
 * @example A port here, a server there
 * ```ts
 * import { connect, forward, forwardUpstream, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const web = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response("from afar"));
 * const target = `127.0.0.1:${web.addr.port}`;
 * const server = serveStreams(forwardUpstream({ allow: [target] }));
 * const client = await connect(server.addr, { remoteStatic: server.publicKey });
 * const forwarder = forward({ client, target });
 *
 * const http = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
 * const response = await fetch(`http://127.0.0.1:${forwarder.addr.port}/`, { client: http });
 * assertEquals(await response.text(), "from afar");
 *
 * http.close();
 * await forwarder.close();
 * await client.close();
 * await server.shutdown();
 * await web.shutdown();
 * ```
 *
 * @throws {TypeError} when `target` is not `host:port`
 * @throws {Deno.errors.AddrInUse} when the port is taken
 */
export function forward(options: ForwardOptions): Forwarder {
  const target = parseTarget(options.target);
  if (target === undefined) {
    throw new TypeError(`Cannot forward: the target "${options.target}" is not host:port`);
  }
  const { maxConnections = DEFAULT_MAX_CONNECTIONS } = options;
  if (!Number.isInteger(maxConnections) || maxConnections < 1) {
    throw new RangeError(`Cannot forward: maxConnections is ${maxConnections}, not 1 or more`);
  }
  options.signal?.throwIfAborted();
  return new RunningForwarder(options, encodeHeader(target), maxConnections);
}

class RunningForwarder implements Forwarder {
  readonly addr: DuplexAddr;
  readonly finished: Promise<void>;
  readonly #options: ForwardOptions;
  readonly #header: Bytes;
  readonly #max: number;
  readonly #listener: ReturnType<typeof listenTcp>;
  readonly #open: Map<Duplex, Promise<void>> = new Map();
  readonly #stop: AbortController = new AbortController();
  #stopping = false;
  #freed: (() => void) | undefined;

  constructor(options: ForwardOptions, header: Bytes, max: number) {
    this.#options = options;
    this.#header = header;
    this.#max = max;
    this.#listener = listenTcp({ ...options.listen, port: options.listen?.port ?? 0 });
    this.addr = this.#listener.addr;
    const { signal } = options;
    const onAbort = () => this.close();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.finished = this.#acceptAll().finally(() => signal?.removeEventListener("abort", onAbort));
  }

  get connections(): number {
    return this.#open.size;
  }

  async shutdown(options: { graceMs?: number | undefined } = {}): Promise<void> {
    this.#stopping = true;
    this.#listener.close();
    this.#freed?.();
    const { graceMs } = options;
    const timer = graceMs === undefined ? undefined : setTimeout(() => this.#break(), timerDelay(graceMs));
    await this.finished;
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    this.#break();
    await this.shutdown();
  }

  #break(): void {
    this.#stop.abort(new HtxError("CLOSED", "Forwarding has ended"));
    for (const duplex of this.#open.keys()) duplex.close?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #acceptAll(): Promise<void> {
    const options = { onError: this.#options.onError, stopping: () => this.#stopping };
    while (!this.#stopping) {
      if (this.#open.size >= this.#max) {
        await new Promise<void>((resolve) => this.#freed = resolve);
        continue;
      }
      const duplex = await acceptNext(this.#listener, options);
      if (duplex === undefined) break;
      const running = this.#carry(duplex).finally(() => {
        this.#open.delete(duplex);
        this.#freed?.();
      });
      this.#open.set(duplex, running);
    }
    await Promise.all(this.#open.values());
  }

  /** One connection, from its beginning to its end. Never rejects. */
  async #carry(duplex: Duplex): Promise<void> {
    let stream: HtxStream;
    try {
      stream = await this.#options.client.createBidirectionalStream({ signal: this.#stop.signal });
    } catch (error) {
      duplex.close?.();
      if (!this.#stop.signal.aborted) tell(this.#options.onError, error);
      return;
    }
    const onAbort = () => stream.reset("CANCELLED", "forwarding has ended");
    this.#stop.signal.addEventListener("abort", onAbort, { once: true });
    try {
      stream.write(this.#header).catch(() => {}); // shows with the first bytes
      await join(duplex.io!, stream);
    } catch (error) {
      if (!this.#stop.signal.aborted) tell(this.#options.onError, error);
    } finally {
      this.#stop.signal.removeEventListener("abort", onAbort);
      duplex.close?.();
    }
  }
}

/** Options of {@linkcode forwardUpstream}. */
export interface ForwardUpstreamOptions {
  /**
   * What clients may reach: `host:port` or `host:*`, compared by name (host names in any case, IP addresses in their
   * usual form), or a function that decides. There is no default, and an empty list allows nothing.
   */
  allow: readonly string[] | ((target: ForwardTarget) => boolean | Promise<boolean>);
  /** Opens the connection. @default {TCP} */
  dial?: ((target: ForwardTarget, options: { signal: AbortSignal }) => Promise<Duplex>) | undefined;
  /** How long the target may take to answer, in ms. @default {10000} */
  dialTimeoutMs?: number | undefined;
  /** Told why a target could not be reached or a connection broke. @default {nobody is} */
  onError?: ((error: unknown) => void) | undefined;
}

/**
 * The far side of {@linkcode forward}: a handler for `serveStreams()` that dials the targets which `allow` names.
 *
 * @throws {TypeError} when an entry of `allow` is neither `host:port` nor `host:*`
 */
export function forwardUpstream(options: ForwardUpstreamOptions): StreamHandler {
  const { onError, dialTimeoutMs = DIAL_TIMEOUT_MS } = options;
  const { dial = (target, { signal }) => dialTcp(target, { signal, timeoutMs: dialTimeoutMs }) } = options;
  const allowed = typeof options.allow === "function" ? options.allow : allowList(options.allow);
  return async (stream) => {
    const header = await readHeader(stream);
    if (header === undefined) return;
    const { target, rest } = header;
    let permitted = false;
    try {
      permitted = await allowed(target) === true;
    } catch (error) {
      tell(onError, error);
    }
    if (!permitted) return stream.reset("REFUSED", "target not allowed");
    let duplex: Duplex;
    try {
      const signal = AbortSignal.any([AbortSignal.timeout(timerDelay(dialTimeoutMs)), stream.signal]);
      duplex = await racedDial(dial(target, { signal }), signal);
    } catch (error) {
      if (stream.error === undefined) {
        stream.reset("INTERNAL_ERROR", "cannot reach target");
        tell(onError, error);
      }
      return;
    }
    let io: ByteIo | undefined;
    try {
      io = duplexIo(duplex);
      if (stream.error !== undefined) return;
      await join(io, stream, rest);
    } catch (error) {
      stream.reset("CANCELLED", "connection broke");
      tell(onError, error);
    } finally {
      io?.close();
      duplex.close?.();
    }
  };
}

/**
 * Carries bytes both ways until both directions have ended; where one breaks, both do, and it rejects. `first` has been
 * read of the stream already.
 */
async function join(io: ByteIo, stream: HtxStream, first?: Uint8Array): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    stream.reset("CANCELLED", "connection broke");
    io.close();
  };
  const out = async () => {
    const buffer = new Uint8Array(BUFFER_LENGTH);
    for (;;) {
      const length = await io.read(buffer);
      if (length === null) return await stream.closeWrite();
      await stream.write(buffer.subarray(0, length));
    }
  };
  const back = async () => {
    if (first !== undefined && first.length > 0) await io.write(first);
    for (;;) {
      const chunk = await stream.read();
      if (chunk === null) return await io.closeWrite();
      await io.write(chunk);
      releaseBytes(chunk);
    }
  };
  // A write to who takes nothing does not hear of the stream's end. With NO_ERROR all that came before is still good.
  const { signal } = stream;
  const onAbort = () => {
    if (stream.error?.code !== "NO_ERROR") fail(signal.reason);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort);
  await Promise.all([out().catch(fail), back().catch(fail)]);
  signal.removeEventListener("abort", onAbort);
  if (failure !== undefined) throw failure.error;
}

/** The header of a stream; `undefined` where it was refused. */
async function readHeader(
  stream: HtxStream,
): Promise<{ target: ForwardTarget; rest: Uint8Array } | undefined> {
  const timer = setTimeout(() => stream.reset("TIMEOUT", "no target came"), HEADER_TIMEOUT_MS);
  try {
    let bytes: Uint8Array = new Uint8Array(0);
    for (;;) {
      if (bytes.length >= 2) {
        const length = bytes[0]! << 8 | bytes[1]!;
        if (length > MAX_HEADER_LENGTH) break;
        if (bytes.length >= 2 + length) {
          const target = decodeTarget(bytes.subarray(2, 2 + length));
          if (target === undefined) break;
          return { target, rest: bytes.subarray(2 + length) };
        }
      }
      const chunk = await stream.read();
      if (chunk === null) break;
      bytes = bytes.length === 0 ? chunk : concat(bytes, chunk);
    }
    stream.reset("PROTOCOL_ERROR", "no target");
  } catch {
    // the client has gone
  } finally {
    clearTimeout(timer);
  }
  return undefined;
}

function encodeHeader(target: ForwardTarget): Bytes {
  const text = utf8(`${SCHEME}${formatTarget(target)}`);
  return concat(new Uint8Array([text.length >>> 8, text.length & 0xff]), text);
}

function decodeTarget(bytes: Uint8Array): ForwardTarget | undefined {
  try {
    const text = fromUtf8(bytes);
    return text.startsWith(SCHEME) ? parseTarget(text.slice(SCHEME.length)) : undefined;
  } catch {
    return undefined;
  }
}

function formatTarget({ hostname, port }: ForwardTarget): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** `host:port`; the host goes through the URL parser, which knows every spelling of an address. */
function parseTarget(text: string): ForwardTarget | undefined {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:[\]/?#@\\]{1,253}):([0-9]{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[2]);
  const hostname = hostOf(match[1]!);
  return hostname === undefined || port < 1 || port > 65_535 ? undefined : { hostname, port };
}

function hostOf(text: string): string | undefined {
  const url = `http://${text}/`;
  if (!URL.canParse(url)) return undefined;
  const { hostname } = new URL(url);
  const plain = hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "");
  return plain === "" ? undefined : plain;
}

function allowList(entries: readonly string[]): (target: ForwardTarget) => boolean {
  const allowed = new Set<string>();
  for (const entry of entries) {
    const any = entry.endsWith(":*");
    const target = parseTarget(any ? `${entry.slice(0, -1)}1` : entry);
    if (target === undefined) {
      throw new TypeError(`Cannot allow targets: "${entry}" is neither host:port nor host:*`);
    }
    allowed.add(any ? `${target.hostname} *` : `${target.hostname} ${target.port}`);
  }
  return ({ hostname, port }) => allowed.has(`${hostname} ${port}`) || allowed.has(`${hostname} *`);
}

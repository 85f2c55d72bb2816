/**
 * `node:http` in front: the hardened front for the open internet without a proxy. It bounds the time for heads, for
 * whole requests and between them, the size of heads, sends 103 and trailers. HTTP/1.1 only, with TLS too.
 *
 * Its WebSockets are its own, on the raw socket: a message is bounded before it is kept, a reader that is slow makes the
 * client wait, and a client that reads nothing or does not end the closing handshake is cut off.
 *
 * @module
 */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { hasControls } from "../core/_controls.ts";
import { holdReading } from "../core/_hold_reading.ts";
import { timerDelay } from "../core/_timer_delay.ts";
import { type NodeSocketBounds, NodeSocketStream } from "./_node_socket.ts";
import { isWebSocketRequest, NodeUpgrade, offersUpgrade } from "./_node_upgrade.ts";
import {
  DEFAULT_FRONT_PORT,
  type FrontAddr,
  type FrontHandler,
  type FrontInfo,
  type FrontOptions,
  type HttpFront,
} from "./front.ts";

/** Options of {@linkcode nodeFront}. */
export interface NodeFrontOptions extends FrontOptions {
  /** Milliseconds for a request's head to arrive. @default {10000} */
  headersTimeoutMs?: number | undefined;
  /** Milliseconds for a whole request to arrive; 0 for no bound. @default {0} */
  requestTimeoutMs?: number | undefined;
  /** Milliseconds that a connection may idle between requests. @default {15000} */
  keepAliveTimeoutMs?: number | undefined;
  /** Milliseconds that an answer, or a WebSocket, may wait for a client that does not read; 0 for no bound. @default {120000} */
  writeTimeoutMs?: number | undefined;
  /** Bytes of a request's head. @default {65536} */
  maxHeaderBytes?: number | undefined;
  /**
   * Bytes that are read, and dropped, of a request that was answered before its end and that nobody reads; with more
   * to come the connection is ended. @default {262144}
   */
  lingerBytes?: number | undefined;
  /** Milliseconds after the answer for the rest of such a request to arrive; then the connection is ended. @default {5000} */
  lingerTimeoutMs?: number | undefined;
}

/** What is read of a request behind its answer: about what Go's server reads, for as long as nginx waits for more. */
const DEFAULT_LINGER_BYTES = 262_144;
const DEFAULT_LINGER_TIMEOUT_MS = 5000;
/** Requests that a connection may send ahead of the answer that it waits for. No browser sends any. */
const MAX_AHEAD = 256;
const CONNECT_REFUSAL = "HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/**
 * `node:http` or `node:https` in front. `shutdown()` waits for open WebSockets as for any request: whoever has them ends
 * them, as a gateway does.
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 */
export async function nodeFront(handler: FrontHandler, options: NodeFrontOptions = {}): Promise<HttpFront> {
  const { hostname = "127.0.0.1", port = DEFAULT_FRONT_PORT, tls } = options;
  const { headersTimeoutMs = 10_000, requestTimeoutMs = 0, keepAliveTimeoutMs = 15_000 } = options;
  const { lingerBytes = DEFAULT_LINGER_BYTES, lingerTimeoutMs = DEFAULT_LINGER_TIMEOUT_MS } = options;
  const { writeTimeoutMs = 120_000 } = options;
  const encrypted = tls !== undefined;
  const settings = {
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.min(1000, Math.max(50, headersTimeoutMs / 4)),
    maxHeaderSize: options.maxHeaderBytes ?? 65_536,
    // RFC 9110 §7.8: a server may ignore the field. Node would take the socket from answers that are still being written.
    shouldUpgradeCallback: (incoming: IncomingMessage) =>
      isWebSocketRequest(incoming) && (lines.get(incoming.socket)?.last.writableEnded ?? true),
  };
  /** With TLS, the TCP sockets below, by their far ends. */
  const carriers = new Map<string, Socket>();
  /** How many requests run, by the far end of their connection: with TLS it has two sockets. */
  const running = new Map<string, number>();
  const begin = (
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    upgrade: NodeUpgrade | undefined,
    ended: () => void,
  ) => {
    const peer = peerOf(incoming.socket);
    running.set(peer, (running.get(peer) ?? 0) + 1);
    outgoing.once("close", () => {
      const left = running.get(peer)! - 1;
      if (left > 0) running.set(peer, left);
      else running.delete(peer);
      ended();
    });
    const rest = new Rest(incoming, carriers.get(peer), lingerBytes);
    outgoing.once("finish", () => rest.linger(lingerTimeoutMs));
    answer(handler, incoming, outgoing, rest, upgrade, encrypted, writeTimeoutMs)
      .catch(() => outgoing.destroy())
      .finally(() => upgrade?.abandon());
  };
  /**
   * The request that runs on a connection, and what was sent ahead of its answer. Begun at once, each of those would hold
   * what it needs for an answer whose turn may never come, and that nothing tells of the connection's end.
   */
  const lines = new WeakMap<Socket, { last: ServerResponse; readonly ahead: (() => void)[] }>();
  const enqueue = (incoming: IncomingMessage, outgoing: ServerResponse, upgrade?: NodeUpgrade) => {
    const { socket } = incoming;
    if (!socket.writable) return; // what comes behind the last request that a connection may ask is none
    const line = lines.get(socket);
    const ahead = line?.ahead ?? [];
    const ended = () => {
      const next = socket.writable ? ahead.shift() : undefined;
      if (next !== undefined) next();
      else lines.delete(socket);
    };
    const start = () => {
      if (upgrade !== undefined) outgoing.assignSocket(socket);
      begin(incoming, outgoing, upgrade, ended);
    };
    if (line === undefined) {
      lines.set(socket, { last: outgoing, ahead });
      start();
    } else {
      line.last = outgoing;
      if (ahead.push(start) <= MAX_AHEAD) return;
      ahead.length = 0;
      socket.destroy();
    }
  };
  const onRequest = (incoming: IncomingMessage, outgoing: ServerResponse) => {
    // Deno 2.9.6 loses what comes in one read with such a request, where it is not upgraded: no other may follow.
    if (offersUpgrade(incoming)) outgoing.shouldKeepAlive = false;
    enqueue(incoming, outgoing);
  };
  const http = await import("node:http");
  const server: Server = tls === undefined
    ? http.createServer(settings, onRequest)
    : (await import("node:https")).createServer(
      { ...settings, handshakeTimeout: headersTimeoutMs, cert: tls.cert, key: tls.key },
      onRequest,
    );
  server.on("connect", (_request: IncomingMessage, socket: Socket) => {
    socket.on("error", () => {});
    socket.end(CONNECT_REFUSAL);
  });
  const bounds: NodeSocketBounds = { writeTimeoutMs, lingerBytes, lingerTimeoutMs };
  server.on("upgrade", (incoming: IncomingMessage, socket: Socket, head: Uint8Array) => {
    const stream = new NodeSocketStream(socket, carriers.get(peerOf(socket)), head, bounds);
    const outgoing = new http.ServerResponse(incoming);
    outgoing.shouldKeepAlive = false;
    enqueue(incoming, outgoing, new NodeUpgrade(incoming, outgoing, stream));
  });
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  };
  server.on("connection", track);
  if (encrypted) {
    server.on("connection", (carrier: Socket) => {
      const peer = peerOf(carrier);
      carriers.set(peer, carrier);
      carrier.on("close", () => carriers.delete(peer));
    });
  }
  // With TLS, "connection" is the TCP socket: one that never shakes hands has no other.
  if (encrypted) server.on("secureConnection", track);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error & { code?: string }) => {
      reject(
        error.code === "EADDRINUSE" ? new Deno.errors.AddrInUse(error.message, { cause: error }) : error,
      );
    };
    server.once("error", failed);
    server.listen(port, hostname, () => {
      server.off("error", failed);
      resolve();
    });
  });
  const bound = server.address();
  const addr = typeof bound === "object" && bound !== null
    ? { hostname: bound.address, port: bound.port }
    : { hostname, port };
  const { promise: finished, resolve } = Promise.withResolvers<void>();
  server.on("close", () => resolve());
  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    server.close();
    // Idle ones, those that have sent half a head, and those that never shook hands: nothing runs there.
    for (const socket of sockets) if (!running.has(peerOf(socket))) socket.destroy();
  };
  const abort = () => {
    stop();
    server.closeAllConnections();
    for (const socket of sockets) socket.destroy();
  };
  return {
    addr,
    encrypted,
    finished,
    shutdown: () => {
      stop();
      return finished;
    },
    abort,
    [Symbol.asyncDispose]: () => {
      abort();
      return finished;
    },
  };
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

async function answer(
  handler: FrontHandler,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  rest: Rest,
  upgrade: NodeUpgrade | undefined,
  encrypted: boolean,
  writeTimeoutMs: number,
): Promise<void> {
  const info = new NodeInfo(incoming, outgoing, upgrade, encrypted);
  let request: Request;
  try {
    request = new NodeRequest(incoming, outgoing, rest, info.fields, encrypted);
  } catch {
    outgoing.writeHead(400, { connection: "close" });
    outgoing.end();
    return;
  }
  const response = await handler(request, info);
  if (upgrade?.response === response) return await upgrade.open();
  await send(response, incoming, outgoing, info, writeTimeoutMs);
  if (!outgoing.writableFinished) await over(outgoing, "finish", writeTimeoutMs);
}

class NodeInfo implements FrontInfo {
  readonly encrypted: boolean;
  readonly fields: readonly (readonly [string, string])[];
  readonly target: string;
  readonly #incoming: IncomingMessage;
  readonly #outgoing: ServerResponse;
  readonly upgradeWebSocket: FrontInfo["upgradeWebSocket"];
  trailers: readonly (readonly [string, string])[] | undefined;

  constructor(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    upgrade: NodeUpgrade | undefined,
    encrypted: boolean,
  ) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
    if (upgrade !== undefined) this.upgradeWebSocket = (_request, options) => upgrade.make(options);
    this.encrypted = encrypted;
    this.target = incoming.url ?? "/";
    this.fields = pairs(incoming.rawHeaders);
  }

  get remoteAddr(): FrontAddr | undefined {
    const { remoteAddress, remotePort } = this.#incoming.socket;
    return remoteAddress === undefined ? undefined : { hostname: remoteAddress, port: remotePort ?? 0 };
  }

  get sendInformational(): NonNullable<FrontInfo["sendInformational"]> {
    return (status, fields) => {
      if (status !== 103 || this.#outgoing.headersSent) return;
      const hints: Record<string, string | string[]> = Object.create(null); // a field may be called constructor
      for (const [name, value] of fields) {
        if (hasControls(value)) continue;
        const before = hints[name];
        hints[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
      }
      if (hints["link"] === undefined) return;
      try {
        this.#outgoing.writeEarlyHints(hints);
      } catch { /* Node refuses some values: a hint that cannot be sent is left out */ }
    };
  }

  get requestTrailers(): NonNullable<FrontInfo["requestTrailers"]> {
    return () => pairs(this.#incoming.rawTrailers);
  }

  get setTrailers(): NonNullable<FrontInfo["setTrailers"]> {
    return (trailers) => this.trailers = trailers;
  }
}

/** The request with what a `Request` would change put back: its URL, its method, its end. */
class NodeRequest extends Request {
  readonly #url: string;
  readonly #method: string;
  readonly #outgoing: ServerResponse;
  #controller: AbortController | undefined;

  constructor(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    rest: Rest,
    fields: readonly (readonly [string, string])[],
    encrypted: boolean,
  ) {
    const method = incoming.method ?? "GET";
    const { headers } = incoming;
    const bodiless = method === "GET" || method === "HEAD" || method === "TRACE" ||
      (headers["content-length"] === undefined && headers["transfer-encoding"] === undefined);
    const init: RequestInit & { duplex?: "half" } = {
      method: /^(?:TRACE|TRACK|CONNECT)$/i.test(method) ? "GET" : method,
      headers: fields.map(([name, value]): [string, string] => [name, value]),
    };
    if (!bodiless) {
      init.body = bodyOf(incoming, rest);
      init.duplex = "half";
    }
    super("http://front.invalid/", init);
    const target = incoming.url ?? "/";
    this.#url = /^https?:\/\//i.test(target)
      ? target
      : `${encrypted ? "https" : "http"}://${headers.host ?? "localhost"}${
        target.startsWith("/") ? "" : "/"
      }${target}`;
    this.#method = method;
    this.#outgoing = outgoing;
  }

  override get url(): string {
    return this.#url;
  }

  override get method(): string {
    return this.#method;
  }

  override get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = this.#controller = new AbortController();
      const outgoing = this.#outgoing;
      const onClose = () => {
        if (!outgoing.writableFinished) controller.abort();
      };
      if (outgoing.destroyed || outgoing.closed) onClose();
      else outgoing.once("close", onClose);
    }
    return this.#controller.signal;
  }
}

/** What comes of a request that nobody reads to its end. */
class Rest {
  readonly #incoming: IncomingMessage;
  readonly #carrier: Socket | undefined;
  #held = false;
  #left: number;
  /** Whether nobody is going to read it. */
  dropping = false;
  #linger: ReturnType<typeof setTimeout> | undefined;
  /** When the body was last asked for more, by whoever reads it; `undefined` where nobody does. */
  askedAt: number | undefined;

  constructor(incoming: IncomingMessage, carrier: Socket | undefined, bytes: number) {
    this.#incoming = incoming;
    this.#carrier = carrier;
    this.#left = bytes;
    const { headers } = incoming;
    const sized = Number(headers["content-length"] ?? 0) > 0;
    if (sized || headers["transfer-encoding"] !== undefined) this.#hold(true);
  }

  /** Reads no more: the client has to keep the rest. */
  pause(): void {
    this.#incoming.pause();
    this.#hold(true);
  }

  /** Reads on. */
  resume(): void {
    this.#hold(false);
    this.#incoming.resume();
  }

  #hold(held: boolean): void {
    if (this.#carrier === undefined || held === this.#held || held && this.#incoming.complete) return;
    this.#held = held;
    holdReading(this.#carrier, held);
  }

  /** Reads what comes and drops it, so that the connection can go on; past the bound the client has to wait. */
  drop(): void {
    if (this.dropping) return;
    this.dropping = true;
    this.askedAt = undefined;
    this.#incoming.on("data", (chunk: Uint8Array) => {
      this.#left -= chunk.length;
      if (this.#left >= 0) return;
      this.pause();
      // A client that reads while it sends learns of it, and has what is left of the time to take its answer.
      if (this.#linger !== undefined) this.#incoming.socket.end();
    });
    this.resume();
  }

  /** The answer is out: gives the request this long to end. */
  linger(ms: number): void {
    const incoming = this.#incoming;
    const { socket } = incoming;
    if (incoming.complete) this.#hold(false); // the next request may come
    if (incoming.complete || socket.destroyed) return;
    const answeredAt = performance.now();
    const late = () => {
      const since = this.askedAt === undefined ? answeredAt : Math.max(answeredAt, this.askedAt);
      const left = since + ms - performance.now();
      if (left > 0) this.#linger = setTimeout(late, timerDelay(left));
      else socket.destroy();
    };
    this.#linger = setTimeout(late, timerDelay(ms));
    const done = () => {
      clearTimeout(this.#linger);
      incoming.off("end", done);
      socket.off("close", done);
    };
    incoming.on("end", done);
    socket.on("close", done); // a request that is cut off has no event of its own for it in every case
    if (this.#left < 0) socket.end();
    if (this.askedAt === undefined) this.drop();
  }
}

function bodyOf(incoming: IncomingMessage, rest: Rest): ReadableStream<Uint8Array> {
  let over = false;
  return new ReadableStream<Uint8Array>({
    start: (controller) => {
      const end = (act: () => void) => {
        if (over) return;
        over = true;
        act();
      };
      incoming.pause();
      incoming.on("data", (chunk: Uint8Array) => {
        if (over || rest.dropping) return;
        rest.pause();
        controller.enqueue(new Uint8Array(chunk));
      });
      incoming.on("end", () => end(() => controller.close()));
      const broken = () => end(() => controller.error(new Error("The client broke off its request")));
      incoming.on("aborted", broken);
      incoming.on("error", broken);
      incoming.on("close", broken);
    },
    pull: () => {
      if (rest.dropping) throw new Error("The request was answered before its body was read");
      rest.askedAt = performance.now();
      rest.resume();
    },
    cancel: () => {
      over = true;
      rest.drop();
    },
  }, { highWaterMark: 0 });
}

async function send(
  response: Response,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  info: NodeInfo,
  writeTimeoutMs: number,
): Promise<void> {
  const { status, body, headers } = response;
  if (outgoing.destroyed) {
    await body?.cancel();
    return;
  }
  const lines: [string, string][] = [];
  headers.forEach((value, name) => lines.push([name, value]));
  const fields = new Map<string, string | string[]>();
  for (const [name, value] of lines) {
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value]);
  }
  const bodiless = body === null || incoming.method === "HEAD";
  // Without chunks there are no trailers, and Node does not send a head that announces them.
  if (bodiless || fields.has("content-length") || incoming.httpVersion !== "1.1") fields.delete("trailer");
  const head = (extra?: [string, string]) => {
    if (extra !== undefined) fields.set(extra[0], extra[1]);
    outgoing.writeHead(status, Object.fromEntries(fields));
  };
  if (bodiless) {
    const sized = fields.has("content-length") || incoming.method === "HEAD" || status === 204 ||
      status === 304;
    try {
      head(sized ? undefined : ["content-length", "0"]);
      outgoing.end();
    } finally {
      await body?.cancel();
    }
    return;
  }
  const reader = body.getReader();
  const sizeless = !fields.has("content-length") && !fields.has("trailer");
  let gone = false;
  const onClose = () => {
    if (outgoing.writableFinished) return;
    gone = true;
    reader.cancel().catch(() => {});
  };
  outgoing.once("close", onClose);
  reader.closed.catch(() => outgoing.destroy()); // also while a client that does not read keeps it from being read
  try {
    const first = reader.read();
    let second: ReturnType<typeof reader.read> | undefined;
    let read = await soon(first);
    if (read === undefined) { // an event stream may say nothing for long: its head does not wait
      head();
      outgoing.flushHeaders();
      read = await first;
    } else {
      if (sizeless && !read.done) {
        second = reader.read();
        if ((await soon(second))?.done) { // a body that is all here gets a length
          head(["content-length", String(read.value.length)]);
          outgoing.end(read.value);
          return;
        }
      }
      head(sizeless && read.done ? ["content-length", "0"] : undefined);
    }
    for (; !read.done; read = await (second ?? reader.read()), second = undefined) {
      if (gone) return;
      if (!outgoing.write(read.value)) await over(outgoing, "drain", writeTimeoutMs);
    }
    if (info.trailers !== undefined && info.trailers.length > 0 && !fields.has("content-length")) {
      const trailers = info.trailers.filter(([, value]) => !hasControls(value));
      outgoing.addTrailers(trailers.map(([name, value]) => [name, value] as [string, string]));
    }
    outgoing.end();
  } catch {
    outgoing.destroy(); // the client sees an end without the last chunk
    reader.cancel().catch(() => {});
  } finally {
    outgoing.off("close", onClose);
  }
}

/** What `promise` gives, or `undefined` when it has not come within a turn of the event loop. */
async function soon<T>(promise: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const later = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), 0));
  try {
    return await Promise.race([promise, later]);
  } finally {
    clearTimeout(timer);
  }
}

/** Settles with the event, or when there is nobody who reads; a client that takes longer is none. */
function over(outgoing: ServerResponse, event: "drain" | "finish", milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    if (outgoing.destroyed || outgoing.closed) return resolve();
    const timer = milliseconds > 0
      ? setTimeout(() => outgoing.destroy(), timerDelay(milliseconds))
      : undefined;
    const done = () => {
      clearTimeout(timer);
      outgoing.off(event, done);
      outgoing.off("close", done);
      resolve();
    };
    outgoing.on(event, done);
    outgoing.on("close", done);
  });
}

function pairs(raw: readonly string[]): [string, string][] {
  const fields: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) fields.push([raw[i]!.toLowerCase(), raw[i + 1]!]);
  return fields;
}

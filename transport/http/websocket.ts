/**
 * WebSockets over a stream (HTX 1.1 §5: CONNECT with `upgrade: websocket`), and what joins them to the runtime's own:
 * a gateway's browsers on one side, an application's `ws:` server on the other.
 *
 * @module
 */

import { timerDelay } from "../../core/_timer_delay.ts";
import { deferred, raced, within } from "../../core/_deferred.ts";
import { type Bytes, HtxError, utf8 } from "../../core/mod.ts";
import { connectOverStream, fieldsOf, orGiveBack } from "./client.ts";
import type { HttpField, HttpRequestHead } from "./message.ts";
import type { HttpExchangeHandler, HttpResponseParts } from "./server.ts";
import type { HttpStream } from "./stream.ts";
import {
  encodeWebSocketClose,
  encodeWebSocketFrame,
  isWireCloseCode,
  WebSocketDecoder,
  type WebSocketDecoderOptions,
  WebSocketOpcode,
} from "./websocket_frames.ts";

/** Payload bytes of a frame that is sent: a long message goes out in pieces, so that others are not kept waiting. */
const FRAME_LENGTH = 65_536;
/**
 * How long a closing handshake may stand still: the peer takes nothing of what waits, or does not answer its end. Not
 * less: when the Close frame is written, 256 KiB may be waiting in the session.
 */
const DEFAULT_CLOSE_TIMEOUT_MS = 5_000;
/** Bytes that a relay lets wait on the side that cannot be paused. */
const DEFAULT_RELAY_BUFFER: number = 16 * 1024 ** 2;
/** Messages that it lets wait there, however short: each takes some hundred bytes beside its own. */
const MAX_RELAY_MESSAGES = 65_536;
/** Bytes that a relay lets wait in a runtime's socket before it reads no more from the stream. */
const RELAY_LOW_WATER = 1024 ** 2;
/** Messages that wait for the stream before a socket that can be made to wait is. */
const RELAY_LOW_MESSAGES = 1024;
const MAX_POLL_MS = 32;
const DEFAULT_DIAL_TIMEOUT_MS = 10_000;

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

/** What the listeners of a {@linkcode StreamWebSocket} are given. */
export interface StreamWebSocketEventMap {
  /** It is open. */
  open: Event;
  /** A message came: a string, an `ArrayBuffer` or a `Blob`. */
  message: MessageEvent;
  /** It failed; `close` follows. */
  error: Event;
  /** It has ended. */
  close: CloseEvent;
}

/** A handler of one of the events. */
export type StreamWebSocketHandler<E extends Event> = ((this: WebSocket, event: E) => unknown) | null;

/**
 * A WebSocket over a stream, with the interface of the standard one: it can be handed to code that expects a
 * `WebSocket`. There are no extensions, and no `url` beyond what it was made with.
 */
export class StreamWebSocket extends EventTarget {
  /** State: not open yet. */
  static readonly CONNECTING = 0;
  /** State: open. */
  static readonly OPEN = 1;
  /** State: closing. */
  static readonly CLOSING = 2;
  /** State: closed. */
  static readonly CLOSED = 3;
  /** State: not open yet. */
  readonly CONNECTING = 0;
  /** State: open. */
  readonly OPEN = 1;
  /** State: closing. */
  readonly CLOSING = 2;
  /** State: closed. */
  readonly CLOSED = 3;

  /** Called when it is open. */
  onopen: StreamWebSocketHandler<Event> = null;
  /** Called with each message. */
  onmessage: StreamWebSocketHandler<MessageEvent> = null;
  /** Called when it fails. */
  onerror: StreamWebSocketHandler<Event> = null;
  /** Called when it has ended. */
  onclose: StreamWebSocketHandler<CloseEvent> = null;
  /** How binary messages are given. @default {"blob"} */
  binaryType: BinaryType = "blob";
  /** Always empty. */
  readonly extensions = "";
  /** The subprotocol agreed on. */
  readonly protocol: string;
  /** What it was opened with. */
  readonly url: string;
  /** @internal Messages that wait to be sent. */
  _waiting = 0;
  /** @internal Awaited after each message: how a relay makes the peer wait. */
  _hold: (() => Promise<void> | undefined) | undefined;

  readonly #decoder: WebSocketDecoder;
  readonly #done: PromiseWithResolvers<void> = deferred();
  readonly #closeTimeoutMs: number;
  #stream: HttpStream | undefined;
  #state: 0 | 1 | 2 | 3 = CONNECTING;
  #buffered = 0;
  #tail: Promise<void> = Promise.resolve();
  #closeSent = false;
  #pongWaits = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #starting: ReturnType<typeof setTimeout> | undefined;

  /** Made by `info.upgradeWebSocket()` and {@linkcode webSocketOverStream}. */
  constructor(
    options:
      & { protocol?: string; url?: string; closeTimeoutMs?: number | undefined; masked?: boolean }
      & WebSocketDecoderOptions = {},
  ) {
    super();
    this.#closeTimeoutMs = timerDelay(options.closeTimeoutMs ?? DEFAULT_CLOSE_TIMEOUT_MS);
    this.protocol = options.protocol ?? "";
    this.url = options.url ?? "";
    this.#decoder = new WebSocketDecoder(options);
    super.addEventListener("open", (event) => this.onopen?.call(this, event));
    super.addEventListener("message", (event) => {
      if (event instanceof MessageEvent) this.onmessage?.call(this, event);
    });
    super.addEventListener("error", (event) => this.onerror?.call(this, event));
    super.addEventListener("close", (event) => {
      if (isCloseEvent(event)) this.onclose?.call(this, event);
    });
  }

  /** 0 connecting, 1 open, 2 closing, 3 closed. */
  get readyState(): 0 | 1 | 2 | 3 {
    return this.#state;
  }

  /** Payload bytes that wait to be sent. */
  get bufferedAmount(): number {
    return this.#buffered;
  }

  /** Adds a listener. */
  override addEventListener<K extends keyof StreamWebSocketEventMap>(
    type: K,
    listener: (this: WebSocket, event: StreamWebSocketEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /** Adds a listener of any event. */
  override addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(type, listener, options);
  }

  /** Takes a listener back. */
  override removeEventListener<K extends keyof StreamWebSocketEventMap>(
    type: K,
    listener: (this: WebSocket, event: StreamWebSocketEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  /** Takes a listener of any event back. */
  override removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
  override removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void {
    super.removeEventListener(type, listener, options);
  }

  /**
   * Sends a message. `bufferedAmount` tells what waits.
   *
   * @throws {DOMException} `InvalidStateError` before it is open
   */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void {
    if (this.#state === CONNECTING) throw new DOMException("WebSocket is not open", "InvalidStateError");
    if (this.#state !== OPEN) return; // as the standard has it
    if (typeof data === "string") return this.#queueBytes(WebSocketOpcode.TEXT, utf8(data));
    if (data instanceof Blob) {
      return this.#queueMessage(data.size, async () => {
        await this.#writeMessage(WebSocketOpcode.BINARY, new Uint8Array(await data.arrayBuffer()));
      });
    }
    const bytes = ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);
    this.#queueBytes(WebSocketOpcode.BINARY, bytes.slice());
  }

  /**
   * Starts the closing handshake.
   *
   * @throws {DOMException} `InvalidAccessError` for a code other than 1000 and 3000 to 4999, `SyntaxError` for a reason
   * above 123 bytes
   */
  close(code?: number, reason = ""): void {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException(`${code} is neither 1000 nor from 3000 to 4999`, "InvalidAccessError");
    }
    if (utf8(reason).length > 123) throw new DOMException("the reason is above 123 bytes", "SyntaxError");
    this._close(code ?? (reason === "" ? 1005 : 1000), reason);
  }

  /** @internal Closes with any code that may stand in a frame. */
  _close(code: number, reason: string): void {
    if (this.#state >= CLOSING) return;
    if (this.#state === CONNECTING) return this._refuse();
    this.#sendClose(code, reason);
  }

  /** @internal Settles when what waits now has been taken, or never will be. */
  _taken(): Promise<void> {
    return this.#tail.catch(() => {});
  }

  /** @internal Both heads are through: from here on it is frames. Settles when it is all over. */
  _start(stream: HttpStream): Promise<void> {
    if (this.#state !== CONNECTING) {
      stream.reset("CANCELLED", "closed before it was open");
      return this.#done.promise;
    }
    this.#stream = stream;
    this.#state = OPEN;
    this.dispatchEvent(new Event("open"));
    // Not before whoever waits for the socket has set listeners.
    this.#starting = setTimeout(() => this.#run(stream), 0);
    return this.#done.promise;
  }

  /** @internal It does not come to be. */
  _refuse(): void {
    if (this.#state !== CONNECTING) return;
    this.#finish(1006, "", false, true);
  }

  async #run(stream: HttpStream): Promise<void> {
    const decoder = this.#decoder;
    try {
      for (;;) {
        const event = decoder.next();
        if (event === undefined) {
          let chunk = stream.tryRead();
          if (chunk === undefined) chunk = await stream.read();
          if (chunk === null) {
            this.#sendClose(1002, "");
            await this.#tail.catch(() => {});
            return this.#finish(1006, "", false, true);
          }
          decoder.push(chunk);
          continue;
        }
        switch (event.type) {
          case "text":
          case "binary":
            if (this.#state === OPEN) {
              this.#give(event.data);
              const held = this._hold?.();
              if (held !== undefined) await raced(held, stream.signal);
            }
            break;
          case "ping":
            this.#pong(event.data);
            break;
          case "pong":
            break;
          case "close":
            this.#sendClose(event.code, "");
            await this.#tail.catch(() => {});
            await drain(stream);
            return this.#finish(event.code, event.reason, true, false);
        }
      }
    } catch {
      if (decoder.closeCode !== undefined) {
        this.#sendClose(decoder.closeCode, "");
        await this.#tail.then(
          () => stream.stopSending(),
          () => stream.reset("PROTOCOL_ERROR", "malformed WebSocket frames"),
        );
        return this.#finish(decoder.closeCode, "", false, true);
      }
      // The stream was reset or its session ended; after any other failure the peer is to know.
      stream.reset("INTERNAL_ERROR", "WebSocket failed");
      this.#finish(1006, "", false, true);
    }
  }

  #give(data: string | Bytes): void {
    const shown = typeof data === "string"
      ? data
      : this.binaryType === "blob"
      ? new Blob([data])
      : data.buffer;
    this.dispatchEvent(new MessageEvent("message", { data: shown }));
  }

  /** RFC 6455 §5.5.3: with several Pings waiting, only the last one need be answered; here one answer waits at most. */
  #pong(data: Bytes): void {
    if (this.#pongWaits || this.#closeSent) return;
    this.#pongWaits = true;
    this.#write(encodeWebSocketFrame(WebSocketOpcode.PONG, data), () => this.#pongWaits = false);
  }

  /** Queues a message of `size` bytes, which `write` then writes. */
  #queueMessage(size: number, write: () => Promise<void>): void {
    this.#buffered += size;
    this._waiting++;
    this.#tail = this.#tail.then(async () => {
      await write();
      this.#buffered -= size;
      this._waiting--;
    });
    this.#tail.catch(() => {}); // shows where the stream is read
  }

  #queueBytes(opcode: number, payload: Bytes): void {
    this.#queueMessage(payload.length, () => this.#writeMessage(opcode, payload));
  }

  async #writeMessage(opcode: number, payload: Bytes): Promise<void> {
    for (let at = 0;; at += FRAME_LENGTH) {
      const part = payload.subarray(at, at + FRAME_LENGTH);
      const fin = at + FRAME_LENGTH >= payload.length;
      await this.#stream?.write(
        encodeWebSocketFrame(at === 0 ? opcode : WebSocketOpcode.CONTINUATION, part, { fin }),
      );
      this.#limitClosing();
      if (fin) return;
    }
  }

  #write(frame: Bytes, then?: () => void): void {
    this.#tail = this.#tail.then(() => this.#stream?.write(frame)).then(then);
    this.#tail.catch(() => {}); // shows where the stream is read
  }

  #sendClose(code: number, reason: string): void {
    if (this.#closeSent) return;
    this.#closeSent = true;
    this.#state = CLOSING;
    this.#limitClosing();
    const frame = encodeWebSocketClose(code, reason);
    this.#tail = this.#tail.then(() => this.#stream?.write(frame, { end: true }))
      .then(() => this.#limitClosing());
    this.#tail.catch(() => {}); // shows where the stream is read
  }

  /** While closing: gives the peer time from now on. */
  #limitClosing(): void {
    if (this.#state !== CLOSING) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#stream?.reset("TIMEOUT", "no closing handshake"),
      this.#closeTimeoutMs,
    );
  }

  #finish(code: number, reason: string, wasClean: boolean, failed: boolean): void {
    if (this.#state === CLOSED) return;
    this.#state = CLOSED;
    clearTimeout(this.#timer);
    clearTimeout(this.#starting);
    if (failed) this.dispatchEvent(new Event("error"));
    this.dispatchEvent(closeEvent({ code, reason, wasClean }));
    this.#tail.catch(() => {}).then(() => this.#done.resolve());
  }
}

/** Node has no `CloseEvent` before version 23. */
class PlainCloseEvent extends Event implements CloseEvent {
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;

  constructor(init: Required<Pick<CloseEventInit, "code" | "reason" | "wasClean">>) {
    super("close");
    this.code = init.code;
    this.reason = init.reason;
    this.wasClean = init.wasClean;
  }
}

function closeEvent(init: Required<Pick<CloseEventInit, "code" | "reason" | "wasClean">>): CloseEvent {
  return typeof CloseEvent === "function" ? new CloseEvent("close", init) : new PlainCloseEvent(init);
}

function isCloseEvent(event: Event): event is CloseEvent {
  return "wasClean" in event;
}

/** Reads what comes behind a Close frame: nothing, from a peer that keeps to the rules. */
async function drain(stream: HttpStream): Promise<void> {
  try {
    while (await stream.read() !== null);
  } catch {
    // the end is an end either way
  }
}

/** Options of `info.upgradeWebSocket()`. */
export interface UpgradeWebSocketOptions extends WebSocketDecoderOptions {
  /** The subprotocol chosen, of those that the request offers. @default {none} */
  protocol?: string | undefined;
}

/** What `info.upgradeWebSocket()` gives, in the shape of Deno's. */
export interface WebSocketUpgrade {
  /** The socket; it opens when the response has been sent. */
  readonly socket: StreamWebSocket;
  /** What the handler returns. Its status is 200: there is no 101 behind a CONNECT (HTX 1.1 §5). */
  readonly response: Response;
}

/** The work of `info.upgradeWebSocket()`. */
export function prepareUpgrade(
  fields: readonly HttpField[],
  url: string,
  options: UpgradeWebSocketOptions,
): WebSocketUpgrade {
  const { protocol } = options;
  if (protocol !== undefined && !offeredProtocols(fields).includes(protocol)) {
    throw new TypeError(`Cannot upgrade: the request does not offer the protocol "${protocol}"`);
  }
  const socket = new StreamWebSocket({
    url,
    maxMessageBytes: options.maxMessageBytes,
    ...(protocol !== undefined && { protocol }),
  });
  const headers: HeadersInit = protocol === undefined ? {} : { "sec-websocket-protocol": protocol };
  return { socket, response: new Response(null, { status: 200, headers }) };
}

/** The subprotocols that a request offers, in order. */
function offeredProtocols(fields: readonly HttpField[]): string[] {
  return fields.filter(([name]) => name === "sec-websocket-protocol")
    .flatMap(([, value]) => value.split(",")).map((one) => one.trim()).filter((one) => one !== "");
}

/**
 * Whether the subprotocols may be offered (RFC 6455 §4.1: tokens that "MUST all be unique strings"). The runtime's client
 * takes names for the same that differ in case alone.
 */
function areProtocols(names: readonly string[]): boolean {
  return new Set(names.map((name) => name.toLowerCase())).size === names.length &&
    names.every((name) => /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name));
}

/** Options of {@linkcode webSocketOverStream}. */
export interface WebSocketOverStreamOptions extends WebSocketDecoderOptions {
  /** Subprotocols offered. @default {none} */
  protocols?: readonly string[] | undefined;
  /** Further fields. @default {none} */
  headers?: HeadersInit | undefined;
  /** Gives up opening. */
  signal?: AbortSignal | undefined;
}

/**
 * Opens a WebSocket to the application behind the tunnel. Listeners set in the same turn in which it resolves miss
 * nothing; its `open` has been, then.
 *
 * @example Through a client
 * ```ts
 * import { connect, serve, webSocketOverStream } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve((_request, info) => {
 *   const { socket, response } = info.upgradeWebSocket();
 *   socket.onmessage = ({ data }) => socket.send(`you said ${data}`);
 *   return response;
 * });
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * const socket = await webSocketOverStream(await client.createBidirectionalStream(), "/chat");
 * const answer = new Promise((resolve) => socket.onmessage = ({ data }) => resolve(data));
 * socket.send("hello");
 * assertEquals(await answer, "you said hello");
 * const closed = new Promise((resolve) => socket.onclose = resolve);
 * socket.close();
 * await closed;
 * ```
 *
 * @param url a path of the server's, or a whole `ws:`, `wss:`, `http:` or `https:` URL
 * @throws {HtxError} `CONNECT_FAILED` where the application answers otherwise, or what the stream failed with
 */
export async function webSocketOverStream(
  stream: HttpStream,
  url: URL | string,
  options: WebSocketOverStreamOptions = {},
): Promise<StreamWebSocket> {
  const { protocols = [], signal, maxMessageBytes } = options;
  const target = orGiveBack(stream, () => new URL(url, "ws://localhost"));
  const head = orGiveBack(stream, () => webSocketHead(target, options));
  const { status, fields: answered, body, tunnel } = await connectOverStream(stream, head, { signal });
  if (tunnel === undefined) {
    body.cancel(); // unread, it would keep the stream
    throw new HtxError("CONNECT_FAILED", `Cannot open WebSocket: the application answered ${status}`);
  }
  const protocol = answered.find(([name]) => name === "sec-websocket-protocol")?.[1] ?? "";
  if (protocol !== "" && !protocols.includes(protocol)) {
    tunnel.reset("PROTOCOL_ERROR", "subprotocol not offered");
    throw new HtxError("CONNECT_FAILED", "Cannot open WebSocket: the subprotocol was not offered");
  }
  const socket = new StreamWebSocket({ protocol, url: target.href, maxMessageBytes });
  socket._start(tunnel);
  return socket;
}

function webSocketHead(target: URL, options: WebSocketOverStreamOptions): HttpRequestHead {
  const { protocols = [], headers } = options;
  const fields: HttpField[] = [["upgrade", "websocket"], ["sec-websocket-version", "13"]];
  if (protocols.length > 0) fields.push(["sec-websocket-protocol", protocols.join(", ")]);
  fields.push(...fieldsOf(new Headers(headers)));
  return {
    method: "CONNECT",
    scheme: target.protocol === "wss:" || target.protocol === "https:" ? "https" : "http",
    authority: target.host,
    path: target.pathname + target.search,
    fields,
  };
}

/** Options of {@linkcode relayWebSocket} and {@linkcode webSocketProxyUpstream}. */
export interface RelayWebSocketOptions extends WebSocketDecoderOptions {
  /** Bytes (of 65536 messages) that may wait for the stream while the other side, which cannot be paused, sends on. @default {16777216} */
  maxBufferedBytes?: number | undefined;
  /** How long a side may hold the closing handshake up, in ms. @default {5000} */
  closeTimeoutMs?: number | undefined;
}

/**
 * Joins a WebSocket of the runtime's (a browser's, upgraded by a gateway) to the stream of an accepted CONNECT
 * (`connectOverStream`): messages both ways, close codes and reasons, until both have ended. Call it in the same turn in
 * which the socket was made. Never rejects.
 *
 * Codes that the API of the runtime's socket refuses (all but 1000 and 3000 to 4999) arrive there as 4000 and the
 * last two digits: 1011 as 4011. A {@linkcode StreamWebSocket}, as a front of our own gives, has them as they are, and
 * is made to wait while the stream takes nothing.
 */
export async function relayWebSocket(
  socket: WebSocket,
  stream: HttpStream,
  options: RelayWebSocketOptions = {},
): Promise<void> {
  const relay = new Relay(socket, options);
  await relay.run(stream);
}

/** The runtime's socket of a relay: what it sends before the stream is there waits. */
class Relay {
  readonly #socket: WebSocket;
  /** The socket where it is one of ours, which can be made to wait. */
  readonly #own: StreamWebSocket | undefined;
  readonly #inner: StreamWebSocket;
  readonly #maxBuffered: number;
  readonly #closeTimeoutMs: number;
  readonly #opened: Promise<void>;
  readonly #closed: Promise<void>;
  /** Ends the pause of a wait for the runtime's socket. */
  #wake: (() => void) | undefined;
  #early: (string | ArrayBuffer)[] | undefined = [];
  #earlyBytes = 0;
  /** The end that came before the stream. */
  #earlyEnd: { readonly code: number; readonly reason: string } | undefined;

  constructor(socket: WebSocket, options: RelayWebSocketOptions) {
    this.#socket = socket;
    this.#maxBuffered = options.maxBufferedBytes ?? DEFAULT_RELAY_BUFFER;
    this.#closeTimeoutMs = timerDelay(options.closeTimeoutMs ?? DEFAULT_CLOSE_TIMEOUT_MS);
    this.#inner = new StreamWebSocket(options);
    this.#inner.binaryType = "arraybuffer";
    socket.binaryType = "arraybuffer";
    if (socket instanceof StreamWebSocket) {
      this.#own = socket;
      socket._hold = () => this.#full() ? this.#inner._taken() : undefined;
    }
    const opened = deferred<void>();
    const closed = deferred<void>();
    this.#opened = opened.promise;
    this.#closed = closed.promise;
    if (socket.readyState !== CONNECTING) opened.resolve();
    socket.addEventListener("open", () => opened.resolve(), { once: true });
    socket.addEventListener("error", () => {}); // `close` follows
    socket.addEventListener("message", ({ data }) => this.#onMessage(data));
    socket.addEventListener("close", ({ code, reason }) => {
      opened.resolve();
      closed.resolve();
      this.#wake?.();
      this.#closeInner(isWireCloseCode(code) || code === 1005 ? code : 1011, reason);
    }, { once: true });
  }

  async run(stream: HttpStream): Promise<void> {
    const inner = this.#inner;
    inner._hold = () => this.#held(stream.signal);
    const onAbort = () => this.#wake?.();
    stream.signal.addEventListener("abort", onAbort);
    inner.onmessage = ({ data }) => {
      if (this.#socket.readyState === OPEN) this.#socket.send(data);
    };
    inner.onclose = ({ code, reason, wasClean }) => this.#closeOuter(wasClean ? code : 1011, reason);
    await this.#opened; // nothing of the stream is read before there is somebody to give it to
    const done = inner._start(stream);
    for (const data of this.#early?.splice(0) ?? []) inner.send(data);
    this.#early = undefined;
    if (this.#earlyEnd !== undefined) {
      inner._close(this.#earlyEnd.code, this.#earlyEnd.reason);
    } else if (this.#socket.readyState >= CLOSING) {
      await within(this.#closed, this.#closeTimeoutMs); // code and reason come with the event
      inner._close(1001, "");
    }
    await done;
    stream.signal.removeEventListener("abort", onAbort);
    await within(this.#closed, this.#closeTimeoutMs);
  }

  /** Nobody took the stream: the runtime's socket ends. */
  abandon(): void {
    this.#closeOuter(1011, "");
  }

  /** Whether as much waits for the stream as should. */
  #full(): boolean {
    return this.#inner.bufferedAmount > RELAY_LOW_WATER || this.#inner._waiting > RELAY_LOW_MESSAGES;
  }

  #onMessage(data: string | ArrayBuffer): void {
    if (this.#own !== undefined && this.#early === undefined) return this.#inner.send(data);
    const size = typeof data === "string" ? utf8(data).length : data.byteLength;
    const early = this.#early;
    const bytes = early === undefined ? this.#inner.bufferedAmount : this.#earlyBytes;
    const messages = early === undefined ? this.#inner._waiting : early.length;
    if (bytes + size > this.#maxBuffered || messages >= MAX_RELAY_MESSAGES) {
      this.#overflow();
    } else if (early === undefined) {
      this.#inner.send(data);
    } else if (this.#earlyEnd === undefined) {
      early.push(data);
      this.#earlyBytes += size;
    }
  }

  #overflow(): void {
    this.#closeOuter(1009, "too much waits");
    this.#closeInner(1009, "too much waits");
  }

  #closeInner(code: number, reason: string): void {
    if (this.#early === undefined) this.#inner._close(code, reason);
    else this.#earlyEnd ??= { code, reason };
  }

  /** Waits while the runtime's socket is full, for which there is no event, or until the stream is reset. */
  #held(reset: AbortSignal): Promise<void> | undefined {
    const socket = this.#socket;
    if (socket.bufferedAmount <= RELAY_LOW_WATER) return undefined;
    return (async () => {
      const full = () => socket.readyState === OPEN && socket.bufferedAmount > RELAY_LOW_WATER;
      for (let pause = 1; full() && !reset.aborted;) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, pause);
          // Not a reaction to `#closed`: that would keep each until the end.
          this.#wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        this.#wake = undefined;
        pause = Math.min(pause * 2, MAX_POLL_MS);
      }
    })();
  }

  #closeOuter(code: number, reason: string): void {
    if (this.#own !== undefined) return this.#own._close(code, reason);
    const shown = code === 1000 || code >= 3000 ? code : 4000 + code % 100;
    try {
      if (code === 1005) this.#socket.close();
      else this.#socket.close(shown, reason);
    } catch {
      // not open yet: its own end will come
    }
  }
}

/** Options of {@linkcode webSocketProxyUpstream}. */
export interface WebSocketProxyOptions extends RelayWebSocketOptions {
  /** How long the application may take to accept, in ms. @default {10000} */
  timeoutMs?: number | undefined;
}

/** Fields that belong to one handshake, or that the runtime's client sets itself. */
const NOT_PASSED: ReadonlySet<string> = /* @__PURE__ */ new Set([
  "upgrade",
  "connection",
  "host",
  "content-length",
  "transfer-encoding",
  "sec-websocket-key",
  "sec-websocket-version",
  "sec-websocket-extensions",
  "sec-websocket-protocol",
]);

/**
 * Answers WebSocket requests by dialing the application's own WebSocket server: the `webSocket` handler of `serve()`'s
 * HTTP options. The request's path and query are added to those of `url`, the queries joined with `&`; its fields and
 * subprotocols are passed on.
 *
 * @example An application that listens on ws://127.0.0.1:9000
 * ```ts ignore
 * import { serve, webSocketProxyUpstream } from "@betanet/htx/transport";
 *
 * const server = serve(app, { http: { webSocket: webSocketProxyUpstream("ws://127.0.0.1:9000") } });
 * ```
 *
 * @throws {TypeError} when `url` is no `ws:` or `wss:` URL
 */
export function webSocketProxyUpstream(
  url: string | URL,
  options: WebSocketProxyOptions = {},
): HttpExchangeHandler {
  const base = new URL(url);
  if (base.protocol !== "ws:" && base.protocol !== "wss:") {
    throw new TypeError("Cannot proxy WebSockets: the URL is neither ws: nor wss:");
  }
  const prefix = base.pathname.replace(/\/$/, "");
  const { timeoutMs = DEFAULT_DIAL_TIMEOUT_MS } = options;
  return async (request, info) => {
    const protocols = offeredProtocols(request.fields);
    if (!areProtocols(protocols)) return { status: 400, fields: [] };
    const target = new URL(`${base.origin}${prefix}${request.path || "/"}`);
    if (base.search !== "") target.search = `${base.search}${target.search.replace("?", "&")}`;
    // Dot segments must not lead out of the part of the application that the URL names.
    if (target.origin !== base.origin || (prefix !== "" && !`${target.pathname}/`.startsWith(`${prefix}/`))) {
      return { status: 400, fields: [] };
    }
    const headers = new Headers();
    for (const [name, value] of request.fields) if (!NOT_PASSED.has(name)) headers.append(name, value);
    // Fields are an addition of the runtime's, which the standard's types do not know.
    const init = { headers, protocols };
    const socket: WebSocket = Reflect.construct(WebSocket, [target, init]);
    const relay = new Relay(socket, options);
    if (!await openedInTime(socket, timeoutMs, info.signal)) {
      socket.close();
      return { status: 502, fields: [] };
    }
    const parts: HttpResponseParts = {
      status: 200,
      fields: socket.protocol === "" ? [] : [["sec-websocket-protocol", socket.protocol]],
      upgrade: (stream) => relay.run(stream),
    };
    // The client may go before it takes the stream over.
    if (info.signal.aborted) relay.abandon();
    else info.signal.addEventListener("abort", () => relay.abandon(), { once: true });
    return parts;
  };
}

function openedInTime(socket: WebSocket, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (opened: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      resolve(opened);
    };
    const onAbort = () => settle(false);
    const timer = setTimeout(() => settle(false), timerDelay(timeoutMs));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.addEventListener("open", () => settle(true), { once: true });
    socket.addEventListener("close", () => settle(false), { once: true });
  });
}

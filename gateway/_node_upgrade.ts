/**
 * Requests for a WebSocket at `node:http`: their handshake (RFC 6455 §4.2), and what becomes of their sockets.
 *
 * @module
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import { hasControls } from "../core/_controls.ts";
import { utf8 } from "../core/mod.ts";
import { StreamWebSocket } from "../transport/mod.ts";
import type { NodeSocketStream } from "./_node_socket.ts";
import type { FrontUpgradeOptions } from "./front.ts";

/** RFC 6455 §1.3: what the server's answer to a key proves that it knows. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/** Fields of the answer to a handshake that are not the handler's. */
const OF_HANDSHAKE: ReadonlySet<string> = /* @__PURE__ */ new Set([
  "connection",
  "upgrade",
  "sec-websocket-accept",
  "content-length",
  "transfer-encoding",
]);

/** Whether Node's parser takes the request for one to upgrade. */
export function offersUpgrade({ headers }: IncomingMessage): boolean {
  return headers.upgrade !== undefined && /\bupgrade\b/i.test(headers.connection ?? "");
}

/** Whether a connection may become a WebSocket (RFC 6455 §4.2.1), be the rest of the handshake well or ill formed. */
export function isWebSocketRequest(incoming: IncomingMessage): boolean {
  const { method, httpVersion, headers } = incoming;
  return method === "GET" && httpVersion === "1.1" && headers.upgrade?.toLowerCase() === "websocket" &&
    headers["content-length"] === undefined && headers["transfer-encoding"] === undefined;
}

/** A request for a WebSocket, which has taken its socket from `node:http`. */
export class NodeUpgrade {
  /** What the handler returns to open it. */
  response: Response | undefined;
  readonly #incoming: IncomingMessage;
  readonly #outgoing: ServerResponse;
  readonly #stream: NodeSocketStream;
  #socket: StreamWebSocket | undefined;

  constructor(incoming: IncomingMessage, outgoing: ServerResponse, stream: NodeSocketStream) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
    this.#stream = stream;
    const { socket } = incoming;
    // Node tells an answer of its socket only where the request was its own.
    socket.on("drain", () => outgoing.emit("drain"));
    outgoing.once("finish", () => stream.stopSending());
    // Any other request ends with its client's direction, too.
    socket.once("end", () => {
      if (this.#socket === undefined || this.#socket.readyState === StreamWebSocket.CONNECTING) {
        socket.destroy();
      }
    });
    stream.signal.addEventListener("abort", () => this.abandon(), { once: true });
  }

  /**
   * The work of `upgradeWebSocket`.
   *
   * @throws {TypeError} where the handshake is ill formed, the client has gone, or it was answered
   */
  make(options: FrontUpgradeOptions = {}): { response: Response; socket: WebSocket } {
    const { headers } = this.#incoming;
    if (headers["sec-websocket-version"] !== "13") throw refusedUpgrade("sec-websocket-version is not 13");
    if (!/^[A-Za-z0-9+/]{22}==$/.test(headers["sec-websocket-key"] ?? "")) {
      throw refusedUpgrade("sec-websocket-key does not hold 16 bytes");
    }
    if (this.#stream.signal.aborted) throw refusedUpgrade("the client has gone");
    if (this.response !== undefined || this.#outgoing.headersSent) throw refusedUpgrade("it was answered");
    this.response = new SwitchingProtocols();
    this.#socket = new StreamWebSocket({ ...options, masked: true });
    return { response: this.response, socket: this.#socket };
  }

  /** The handler has returned the response: sends it, and from here on it is frames. */
  async open(): Promise<void> {
    const key = this.#incoming.headers["sec-websocket-key"];
    const digest = await crypto.subtle.digest("SHA-1", utf8(`${key}${WEBSOCKET_GUID}`));
    let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
      `sec-websocket-accept: ${btoa(String.fromCharCode(...new Uint8Array(digest)))}\r\n`;
    this.response!.headers.forEach((value, name) => {
      if (hasControls(value)) throw refusedUpgrade(`${name} holds a control character`);
      if (!OF_HANDSHAKE.has(name)) head += `${name}: ${value}\r\n`;
    });
    this.#incoming.socket.write(`${head}\r\n`, "latin1");
    this.#socket!._start(this.#stream);
  }

  /** It does not come to be: nothing happens where it has. */
  abandon(): void {
    this.#socket?._refuse();
  }
}

function refusedUpgrade(why: string): TypeError {
  return new TypeError(`Cannot upgrade to WebSocket: ${why}`);
}

/** A `Response` cannot be made with this status. */
class SwitchingProtocols extends Response {
  constructor() {
    super(null);
  }

  override get status(): number {
    return 101;
  }
}

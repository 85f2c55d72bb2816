/**
 * What stands in front of a gateway: an HTTP server, seen through one small interface. {@linkcode denoFront} is
 * `Deno.serve`, {@linkcode nodeFront} (in `node_front.ts`) is `node:http` with its head, request and idle timeouts.
 *
 * @module
 */

import { borrow } from "./_lending.ts";
import { closeUnlessOpened } from "./_opening.ts";

/** A connection's far end. */
export interface FrontAddr {
  /** IP address, without brackets; empty for a UNIX socket. */
  readonly hostname: string;
  /** Port number. */
  readonly port: number;
}

/** What a front knows of a request beside the `Request`. */
export interface FrontInfo {
  /** Where the connection comes from: the client, or a proxy in front of this front. */
  readonly remoteAddr: FrontAddr | undefined;
  /** Whether TLS ends at this front. */
  readonly encrypted: boolean;
  /** The request target as it stood in the request line, where the `Request` cannot hold it byte for byte. */
  readonly target?: string | undefined;
  /** The `cookie` and other fields as lines in their order, where the front has them. */
  readonly fields?: readonly (readonly [name: string, value: string])[] | undefined;
  /** Sends an informational response, where the front can. */
  readonly sendInformational?:
    | ((status: number, fields: readonly (readonly [string, string])[]) => void)
    | undefined;
  /** Trailers of the request, once its body has been read, where the front has them. */
  readonly requestTrailers?: (() => readonly (readonly [string, string])[]) | undefined;
  /** Trailers for the response, to be given when its body has ended, where the front can send them. */
  readonly setTrailers?: ((trailers: readonly (readonly [string, string])[]) => void) | undefined;
  /**
   * Answers an upgrade of this connection to WebSocket, where the front can. The socket opens when the handler has
   * returned the very response.
   */
  readonly upgradeWebSocket?:
    | ((request: Request, options?: FrontUpgradeOptions) => { response: Response; socket: WebSocket })
    | undefined;
}

/** Options of `upgradeWebSocket` of {@linkcode FrontInfo}. */
export interface FrontUpgradeOptions {
  /** Bytes of a message, where the front can bound it: Deno's takes 64 MiB a frame, and frames without end. @default {16777216} */
  maxMessageBytes?: number | undefined;
  /** How long the closing handshake may stand still, in ms, where the front can cut a socket off: Deno's cannot. @default {5000} */
  closeTimeoutMs?: number | undefined;
}

/** Answers a request: a gateway's `handler`, or a decoy's. Never rejects. */
export type FrontHandler = (request: Request, info: FrontInfo) => Response | Promise<Response>;

/** A running HTTP server. */
export interface HttpFront extends AsyncDisposable {
  /** Where it listens. */
  readonly addr: FrontAddr;
  /** Whether TLS ends here. */
  readonly encrypted: boolean;
  /** Settles when it has ended, or has been let go of: see {@linkcode denoFront}. */
  readonly finished: Promise<void>;
  /** Takes no new connections, or refuses what they ask, and lets running requests finish. */
  shutdown(): Promise<void>;
  /** Ends everything at once. Idempotent. */
  abort(): void;
}

/** Certificate and key of a TLS front. */
export interface FrontTls {
  /** The certificate chain, PEM. */
  readonly cert: string;
  /** The private key, PEM. */
  readonly key: string;
}

/** Options of {@linkcode denoFront} and of `nodeFront`. */
export interface FrontOptions {
  /** Address to listen on. @default {"127.0.0.1"} */
  hostname?: string | undefined;
  /** Port to listen on; 0 lets the system choose. @default {8080} */
  port?: number | undefined;
  /** Speaks TLS, and HTTP/2 to clients that offer it. @default {plain HTTP/1.1, and HTTP/2 by prior knowledge} */
  tls?: FrontTls | undefined;
}

/** Options of {@linkcode denoFront}. */
export interface DenoFrontOptions extends FrontOptions {
  /** Answers who comes while `shutdown()` waits for the uploads of others. @default {503} */
  whileStopping?: FrontHandler | undefined;
}

/** The port where none is given. */
export const DEFAULT_FRONT_PORT = 8080;

/**
 * `Deno.serve` in front. It speaks HTTP/1.1 and HTTP/2, refuses malformed requests itself, and has **no time limit for
 * request heads or idle connections**, reads on, without bound, what a client sends of a request that has been
 * answered, and collects the fragments of a WebSocket message without bound: on the open internet put a proxy before it,
 * or use `nodeFront`. It sends no informational responses (save
 * `100 Continue`) and no trailers.
 *
 * `shutdown()` refuses new connections at once where no request with a body is under way; else it answers what they ask
 * by `whileStopping` until there is none, since Deno's server would break such requests off.
 *
 * Once it was shut down, nothing ends the connections that it still has but their clients, or the end of the process:
 * `abort()` then lets go of them, and a program that wants to end calls `Deno.exit`.
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 */
export function denoFront(handler: FrontHandler, options: DenoFrontOptions = {}): HttpFront {
  const { hostname = "127.0.0.1", port = DEFAULT_FRONT_PORT, tls, whileStopping = refusal } = options;
  const encrypted = tls !== undefined;
  const controller = new AbortController();
  /** Requests with a body under way. */
  let uploads = 0;
  let uploaded: (() => void) | undefined;
  const onCompleted = () => {
    if (--uploads === 0) uploaded?.();
  };
  const server: Deno.HttpServer<Deno.NetAddr> = Deno.serve(
    {
      hostname,
      port,
      signal: controller.signal,
      onListen: () => {},
      onError: () => new Response("500 Internal Server Error\n", { status: 500 }),
      ...tls,
    },
    (request, info) => {
      const { method } = request;
      if (method !== "GET" && method !== "HEAD") {
        uploads++;
        info.completed.then(onCompleted, onCompleted);
      }
      const answer = stopping === undefined || shutDown ? handler : whileStopping;
      const response = answer(request, new DenoInfo(info, encrypted));
      // Deno's server pulls a chunk when the one before is in the hands of its socket.
      return response instanceof Response ? borrow(response) : response.then(borrow);
    },
  );
  let ended = false;
  let stopping: Promise<void> | undefined;
  let shutDown = false;
  const { promise: lost, resolve: letGo } = Promise.withResolvers<void>();
  const over = server.finished.then(() => {
    ended = true;
  });
  const finished = Promise.race([over, lost]);
  const stop = async () => {
    // Over HTTP/1.1 the server's own shutdown() breaks off requests that have not arrived whole.
    if (uploads > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      uploaded = resolve;
      await Promise.race([promise, over]);
    }
    if (ended) return await finished;
    shutDown = true;
    await Promise.race([server.shutdown(), finished]);
  };
  const abort = () => {
    if (ended) return;
    ended = true;
    // After shutdown() the signal would throw BadResource in a listener of Deno's, where nobody can catch it.
    if (shutDown) letGo();
    else controller.abort();
  };
  return {
    addr: { hostname: server.addr.hostname, port: server.addr.port },
    encrypted,
    finished,
    shutdown: () => ended ? finished : stopping ??= stop(),
    abort,
    [Symbol.asyncDispose]: async () => {
      abort();
      await finished;
    },
  };
}

/** For who comes while uploads hold the shutdown up. */
function refusal(): Response {
  return new Response("503 Service Unavailable: the server is shutting down\n", {
    status: 503,
    headers: { "content-type": "text/plain; charset=utf-8", connection: "close" },
  });
}

class DenoInfo implements FrontInfo {
  readonly #info: Deno.ServeHandlerInfo<Deno.NetAddr>;
  readonly encrypted: boolean;

  constructor(info: Deno.ServeHandlerInfo<Deno.NetAddr>, encrypted: boolean) {
    this.#info = info;
    this.encrypted = encrypted;
  }

  get remoteAddr(): FrontAddr {
    return this.#info.remoteAddr;
  }

  get upgradeWebSocket(): (request: Request) => { response: Response; socket: WebSocket } {
    const { completed } = this.#info;
    return (request) => {
      const upgraded = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
      closeUnlessOpened(upgraded.socket, completed);
      return upgraded;
    };
  }
}

/**
 * An upstream in the gateway's own process: a session over memory, with a handshake and sealed frames like any other.
 *
 * @module
 */

import { getLogger, type Logger } from "@logtape/logtape";
import type { Duplex } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import {
  type FetchApp,
  type HttpHandler,
  type HttpRequestInfo,
  httpStreams,
  type HtxServer,
  memoryDuplexPair,
  serveHttpExchange,
  serveStreams,
  type ServeStreamsOptions,
  type StreamHandler,
} from "../transport/mod.ts";
import type { UpstreamEndpoint } from "./upstreams.ts";

/** An upstream in this process: give it to `createGateway`. */
export interface LocalUpstream extends UpstreamEndpoint, AsyncDisposable {
  /** Its server. */
  readonly server: HtxServer;
}

/** Options of {@linkcode localUpstream} and {@linkcode localStreams}. */
export interface LocalUpstreamOptions extends Omit<ServeStreamsOptions, "listeners" | "hostname" | "port"> {
  /** Name for logs and metrics. @default {"in-process"} */
  name?: string | undefined;
}

/** Serves a fetch handler, or what has one, in this process. */
export function localUpstream(app: FetchApp, options: LocalUpstreamOptions = {}): LocalUpstream {
  const handler: HttpHandler = typeof app === "function" ? app : (request, info) => app.fetch(request, info);
  return localStreams(httpStreams(withLogging(handler)), options);
}

/**
 * A handler with a line under `["htx", "handler"]` for each request: method, path without query, status, bytes, time
 * until the body's end, and the request's id.
 *
 * @example
 * ```ts
 * import { withLogging } from "@betanet/htx/gateway";
 * import { serve } from "@betanet/htx/transport";
 *
 * await using server = serve(withLogging(() => new Response("hello")));
 * ```
 */
export function withLogging(handler: HttpHandler): HttpHandler {
  const log = getLogger(["htx", "handler"]);
  return (request, info) => {
    if (!log.isEnabledFor("info")) return handler(request, info);
    return logRequest(log, handler, request, info);
  };
}

async function logRequest(
  log: Logger,
  handler: HttpHandler,
  request: Request,
  info: HttpRequestInfo,
): Promise<Response> {
  const started = performance.now();
  let bytes = 0;
  const line = (status: number, end: string) =>
    log.info("{method} {path} {status} bytes={bytes} time_ms={time_ms} {end}", {
      id: request.headers.get("x-request-id") ?? undefined,
      method: request.method,
      path: info.rawPath.split("?", 1)[0],
      status,
      bytes,
      end,
      time_ms: Math.round((performance.now() - started) * 100) / 100,
    });
  let response: Response;
  try {
    response = await handler(request, info);
  } catch (error) {
    line(500, "failed");
    throw error;
  }
  const { status, headers, body } = response;
  if (body === null) {
    line(status, "done");
    return response;
  }
  const reader = body.getReader();
  const counted = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      try {
        const { value, done } = await reader.read();
        if (done) {
          line(status, "done");
          return controller.close();
        }
        bytes += value.length;
        controller.enqueue(value);
      } catch (error) {
        line(status, "cut");
        throw error;
      }
    },
    cancel: async (reason) => {
      line(status, "cut");
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
  return new Response(counted, { status, headers });
}

/** Serves raw streams in this process. */
export function localStreams(handler: StreamHandler, options: LocalUpstreamOptions = {}): LocalUpstream {
  const { name = "in-process", keyPair = KeyPair.generate(), ...rest } = options;
  const server = serveStreams(handler, { ...rest, keyPair, listeners: [] });
  return {
    name,
    publicKey: keyPair.publicKey,
    server,
    dial: (): Promise<Duplex> => {
      const [near, far] = memoryDuplexPair();
      server.accept(far);
      return Promise.resolve(near);
    },
    [Symbol.asyncDispose]: () => server.shutdown({ graceMs: 0 }),
  };
}

/**
 * Answers HTTP requests with their own bodies, and those without one with a line about themselves. Logs a line for each
 * under `["htx", "echo"]`.
 */
export function httpEcho(): StreamHandler {
  const log = getLogger(["htx", "echo"]);
  return (stream, info) =>
    serveHttpExchange(stream, (request) => {
      const started = performance.now();
      const { method, path, body } = request;
      const type = request.fields.find(([name]) => name === "content-type")?.[1];
      const id = request.fields.find(([name]) => name === "x-request-id")?.[1];
      const length = body.contentLength;
      if (log.isEnabledFor("info")) {
        body.trailers.then(() => "done", () => "cut").then((end) =>
          log.info("{method} {path} bytes={bytes} echo time_ms={time_ms} {end}", {
            id,
            method,
            path: path.split("?", 1)[0],
            end,
            bytes: length ?? 0,
            time_ms: Math.round((performance.now() - started) * 100) / 100,
          })
        );
      }
      if (method === "GET" || method === "HEAD") {
        return {
          status: 200,
          fields: [["content-type", "text/plain; charset=utf-8"]],
          body:
            `This is the echo upstream. POST something: curl -d hello ${request.scheme}://${request.authority}/echo\n`,
        };
      }
      return {
        status: 200,
        fields: [
          ["content-type", type ?? "application/octet-stream"],
          ...(length === undefined ? [] : [["content-length", String(length)] as const]),
        ],
        body,
      };
    }, { connection: info.connection });
}

/**
 * An upstream in the gateway's own process: a session over memory, with a handshake and sealed frames like any other.
 *
 * @module
 */

import { getLogger } from "@logtape/logtape";
import type { Duplex } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import {
  type FetchApp,
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
  name?: string;
}

/** Serves a fetch handler, or what has one, in this process. */
export function localUpstream(app: FetchApp, options: LocalUpstreamOptions = {}): LocalUpstream {
  return localStreams(httpStreams(app), options);
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
          log.info("{method} {path} echo {time_ms} ms, {end}", {
            id,
            method,
            path: path.split("?", 1)[0],
            end,
            time_ms: Math.round((performance.now() - started) * 100) / 100,
          })
        );
      }
      if (method === "GET" || method === "HEAD") {
        return {
          status: 200,
          fields: [["content-type", "text/plain; charset=utf-8"]],
          body: `This is the echo upstream. POST something: curl -d hello http://${request.authority}/echo\n`,
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

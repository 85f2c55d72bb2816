/**
 * `serve()`: a fetch handler behind the tunnel, in the shape of `Deno.serve`.
 *
 * @module
 */

import { resolveLimits } from "./http/message.ts";
import { type HttpHandler, serveHttpStream, type ServeHttpStreamOptions } from "./http/mod.ts";
import { HtxServer, type ServeStreamsOptions, type StreamHandler } from "./server.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions extends ServeStreamsOptions {
  /** Bounds, timeouts and hooks of the HTTP exchanges. */
  http?: Omit<ServeHttpStreamOptions, "connection"> | undefined;
}

/** A fetch handler, or an object that has one: Hono, or a `{ fetch }` default export. */
export type FetchApp = HttpHandler | { fetch: HttpHandler };

/**
 * A stream handler that answers each stream as one HTTP exchange (HTX 1.1 §5).
 *
 * @throws {TypeError} when `app` is neither a function nor has one as `fetch`
 * @throws {RangeError} when a limit is not a non-negative integer
 */
export function httpStreams(
  app: FetchApp,
  options: Omit<ServeHttpStreamOptions, "connection"> = {},
): StreamHandler {
  resolveLimits(options.limits); // told now, rather than by every exchange
  if (typeof app !== "function" && typeof app?.fetch !== "function") {
    throw new TypeError("Cannot serve: the application is neither a function nor has one as fetch");
  }
  const handler: HttpHandler = typeof app === "function" ? app : (request, info) => app.fetch(request, info);
  return (stream, info) => serveHttpStream(stream, handler, { ...options, connection: info.connection });
}

/**
 * Serves a fetch handler to HTX clients, over TCP or the `listeners` given.
 *
 * @example A handler behind the tunnel
 * ```ts
 * import { connect, serve } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve(() => new Response("hello"));
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * assertEquals(await (await client.fetch("/")).text(), "hello");
 * ```
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 * @throws {TypeError} when `app` is neither a function nor has one as `fetch`
 * @throws {RangeError} when a bound is out of its range
 */
export function serve(app: FetchApp, options: ServeOptions = {}): HtxServer {
  return new HtxServer(httpStreams(app, options.http), options);
}

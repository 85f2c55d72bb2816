/**
 * The reverse proxy of a few lines: `Deno.serve` in front, `fetch` over TLS behind.
 *
 *     http_proxy.ts <port of the upstream> <h1 | h2> <certificate>
 *
 * @module
 */

import { say } from "./_role.ts";

const [port = "", version = "h2", certificate = ""] = Deno.args;
const client = Deno.createHttpClient({
  caCerts: [await Deno.readTextFile(certificate)],
  http1: version === "h1",
  http2: version === "h2",
});
const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
  const { pathname, search } = new URL(request.url);
  const init: RequestInit & { client: Deno.HttpClient } = {
    method: request.method,
    headers: request.headers,
    body: request.body,
    redirect: "manual",
    client,
  };
  return fetch(`https://127.0.0.1:${port}${pathname}${search}`, init);
});
say("READY " + JSON.stringify({ port: server.addr.port }));
await server.finished;

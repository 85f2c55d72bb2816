/**
 * A web application behind the gateway: one function from a `Request` to a `Response`.
 *
 *     deno run -N examples/run_fetch.ts
 *     curl http://127.0.0.1:8081/json
 *
 * Permissions: `-N` (to listen, and to dial the upstream).
 *
 * @module
 */

import { createGateway, denoFront } from "@betanet/htx/gateway";
import { serve } from "@betanet/htx/transport";
import { httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
A fetch handler behind the gateway, on 127.0.0.1, with the routes / and /json.

Usage: deno run -N examples/run_fetch.ts [--port 8081]

  --port   where the gateway listens; 0 lets the system choose (8081)

Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

function app(request: Request): Response {
  const { pathname } = new URL(request.url);
  if (pathname === "/") return new Response("hello from behind the tunnel; try /json\n");
  if (pathname === "/json") {
    return Response.json({
      hello: "world",
      method: request.method,
      from: request.headers.get("x-forwarded-for"),
    });
  }
  return new Response("404 Not Found\n", { status: 404 });
}

await main({ help, stays: true, options: { port: "8081" } }, async (args) => {
  const port = args.port("--port");
  const upstream = serve(app);
  const gateway = createGateway({ upstream: { ...upstream.addr, publicKey: upstream.publicKey } });
  const front = denoFront(gateway.handler, { port });

  const url = httpUrl(front.addr);
  console.log(`application on ${url}/`);
  console.log(`try: curl ${url}/json`);
  await untilStopped([front, gateway], [upstream]);
});

/**
 * An application of your own behind the gateway: copy this file and write your routes.
 *
 *     deno run -N examples/build_your_own.ts
 *     curl http://127.0.0.1:8083/hello/you
 *
 * Permissions: `-N` (to listen, and to dial the upstream).
 *
 * @module
 */

import { createGateway, denoFront } from "@betanet/htx/gateway";
import { serve } from "@betanet/htx/transport";
import { httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
An application of your own behind the gateway, on 127.0.0.1.

Usage: deno run -N examples/build_your_own.ts [--port 8083]

  --port   where the gateway listens; 0 lets the system choose (8083)

Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

/** The routes. `URLPattern` is a standard of the web platform; a router such as Hono does as well. */
const routes: [
  string,
  string,
  (request: Request, groups: Record<string, string | undefined>) => Response | Promise<Response>,
][] = [
  ["GET", "/", () => html("<h1>Your application</h1><p>Edit me. <a href='/hello/you'>Say hello</a>.")],
  ["GET", "/hello/:name", (_request, { name }) => new Response(`hello, ${name}\n`)],
  ["POST", "/shout", async (request) => new Response((await request.text()).toUpperCase())],
  ["GET", "/time", () => new Response(ticks(), { headers: { "content-type": "text/event-stream" } })],
];

function app(request: Request): Response | Promise<Response> {
  for (const [method, pathname, handler] of routes) {
    const match = new URLPattern({ pathname }).exec(request.url);
    if (match === null || request.method !== method) continue;
    return handler(request, match.pathname.groups);
  }
  return new Response("404 Not Found\n", { status: 404 });
}

/** Three events, a moment apart: each reaches the client when it is made. */
function ticks(): ReadableStream<Uint8Array> {
  let left = 3;
  return new ReadableStream<string>({
    async pull(controller) {
      controller.enqueue(`data: ${new Date().toISOString()}\n\n`);
      if (--left === 0) return controller.close();
      await new Promise((resolve) => setTimeout(resolve, 500));
    },
  }).pipeThrough(new TextEncoderStream());
}

function html(body: string): Response {
  return new Response(`<!doctype html>${body}\n`, {
    headers: { "content-type": "text/html; charset=utf-8" },
  });
}

await main({ help, stays: true, options: { port: "8083" } }, async (args) => {
  const port = args.port("--port");
  const upstream = serve(app);
  const gateway = createGateway({ upstream: { ...upstream.addr, publicKey: upstream.publicKey } });
  const front = denoFront(gateway.handler, { port });

  const url = httpUrl(front.addr);
  console.log(`your application on ${url}/`);
  console.log(`try: curl ${url}/hello/you`);
  await untilStopped([front, gateway], [upstream]);
});

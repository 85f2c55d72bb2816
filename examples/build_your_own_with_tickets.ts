/**
 * An application of your own that only ticket holders see; everybody else sees a decoy. Copy this file and write
 * your application.
 *
 *     deno run -N examples/build_your_own_with_tickets.ts
 *
 * Permissions: `-N` (to listen, and to dial the upstream).
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { createGateway, denoFront } from "@betanet/htx/gateway";
import { generateTicketKey, TicketPolicy } from "@betanet/htx/tickets";
import { serve } from "@betanet/htx/transport";
import { httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
An application behind a gateway that asks for tickets, on 127.0.0.1. Who has none gets the decoy.

Usage: deno run -N examples/build_your_own_with_tickets.ts [--port 8084]

  --port   where the gateway listens; 0 lets the system choose (8084)

Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

/** What ticket holders see. No ticket reaches it: the gateway takes them out. */
function app(request: Request): Response {
  const { pathname } = new URL(request.url);
  return new Response(`welcome to ${pathname}\n`);
}

/** What everybody else sees, and what a refused ticket gets, whatever was wrong with it. */
function decoy(request: Request): Response {
  const { pathname } = new URL(request.url);
  if (pathname !== "/") return new Response("Not Found\n", { status: 404 });
  return new Response("<!doctype html><title>Bicycles</title><h1>Bicycles, repaired since 1994</h1>\n", {
    headers: { "content-type": "text/html; charset=utf-8" },
  });
}

await main({ help, stays: true, options: { port: "8084" } }, async (args) => {
  const port = args.port("--port");
  const upstream = serve(app);

  // Fresh at each start. A site keeps its ticket key, with the file readable by its owner alone: start_from_config.ts.
  const ticketKey = generateTicketKey();
  const policy = TicketPolicy.parse("v1; carriers=cookie:0.6,query:0.4; len=24..64; cookie=__Host-bn1");
  const gateway = createGateway({
    upstream: { ...upstream.addr, publicKey: upstream.publicKey },
    admission: {
      policy,
      verifier: { keys: [ticketKey] },
      // A ticket is good once; this cookie stands for the requests after it.
      session: { keys: [crypto.getRandomValues(new Uint8Array(32))], seconds: 15 * 60 },
    },
    decoy,
  });
  const front = denoFront(gateway.handler, { port });

  const url = httpUrl(front.addr);
  const [pub, id] = [toHex(ticketKey.publicKey), toHex(ticketKey.keyId)];
  console.log(`application on ${url}/`);
  console.log(`ticket_pub=${pub}`);
  console.log(`ticket_key_id=${id}`);
  console.log(`the decoy:       curl ${url}/`);
  console.log(`the application: curl -H "$(deno run examples/make_cookie.ts ${pub} ${id})" ${url}/`);
  await untilStopped([front, gateway], [upstream]);
});

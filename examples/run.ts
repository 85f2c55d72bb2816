/**
 * The whole tunnel in one process: HTTP in at a gateway, through an encrypted, multiplexed session, to an echo.
 *
 *     deno run -N examples/run.ts
 *     curl -X POST -d hello http://127.0.0.1:8080/echo
 *
 * Permissions: `-N` (to listen, and to dial the upstream).
 *
 * @module
 */

import { createGateway, denoFront, httpEcho } from "@betanet/htx/gateway";
import { serveStreams } from "@betanet/htx/transport";
import { hostPort, httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
An echo behind the gateway, on 127.0.0.1: what you post comes back, through the tunnel.

Usage: deno run -N examples/run.ts [--port 8080]

  --port   where the gateway listens; 0 lets the system choose (8080)

Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

await main({ help, stays: true, options: { port: "8080" } }, async (args) => {
  const port = args.port("--port");

  // The far end of the tunnel. Over TCP here, so that there is something to look at with tcpdump.
  const upstream = serveStreams(httpEcho());
  // The near end: each request becomes one stream of one session. The key is pinned: nobody else is talked to.
  const gateway = createGateway({ upstream: { ...upstream.addr, publicKey: upstream.publicKey } });
  const front = denoFront(gateway.handler, { port });

  const url = httpUrl(front.addr);
  console.log(`gateway on ${url}/, tunnel to ${hostPort(upstream.addr)}`);
  console.log(`try: curl -X POST -d hello ${url}/echo`);
  await untilStopped([front, gateway], [upstream]);
});

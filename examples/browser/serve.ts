/**
 * HTX in a browser tab. One port has it all: a web site with the page, and a WebSocket behind a ticket at which the
 * encrypted tunnel begins. Without a ticket that WebSocket is one more page that is not there.
 *
 *     deno run -N -R=examples/browser --allow-run=deno examples/browser/serve.ts
 *
 * Permissions: `-N` (to listen), `-R=examples/browser` (the page), `--allow-run=deno` (to bundle the page's script).
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { KeyPair } from "@betanet/htx/noise";
import { generateTicketKey, TicketGate, TicketPolicy, TicketVerifier } from "@betanet/htx/tickets";
import { serve, WebSocketListener } from "@betanet/htx/transport";
import { httpUrl, main, untilStopped } from "../_cli.ts";
import { bundle } from "./bundle.ts";
import { resources } from "./resources.ts";
import { createSite } from "./site.ts";

const help = `
A web page that fetches through HTX, on 127.0.0.1.

Usage: deno run -N -R=examples/browser --allow-run=deno examples/browser/serve.ts [--port 8087]

  --port   where it listens; 0 lets the system choose (8087)

Open the address that it prints. It stays on this machine: a site for others has TLS in front, since a ticket in a URL
is for nobody else to see.

Exit status: 0 stopped, 1 failed (the port is taken, the script cannot be bundled), 2 bad arguments.`;

/** Where the tunnel begins: a path like any other. */
const ENDPOINT = "/live";

await main({ help, options: { port: "8087" } }, async (args) => {
  const port = args.port("--port");
  const script = await bundle();

  // Fresh at each start, so that every start is a first one. A site keeps both, in files that it alone can read.
  const keyPair = KeyPair.generate();
  const ticketKey = generateTicketKey();
  // A browser sets neither fields nor a body on a WebSocket: the ticket travels in its URL.
  const policy = new TicketPolicy({ carriers: { query: 1 } });
  const gate = new TicketGate({
    verifier: new TicketVerifier({ keys: [ticketKey], carriers: ["query"] }),
    cookie: policy.cookie,
  });

  const stopping = new AbortController();
  const listener = new WebSocketListener();
  const tunnel = serve(resources(stopping.signal), {
    keyPair,
    listeners: [listener],
    rekey: { afterBytes: 8 * 1024 ** 2 }, // a thousandth of what is allowed, for one to see it happen
  });

  const { publicKey, keyId } = ticketKey;
  const site = await createSite({
    script,
    policy,
    config: {
      endpoint: ENDPOINT,
      serverKey: toHex(keyPair.publicKey),
      ticket: { publicKey: toHex(publicKey), keyId: toHex(keyId) },
    },
  });

  const front = Deno.serve({ port, hostname: "127.0.0.1", onListen: () => {} }, async (request, info) => {
    const { pathname, search } = new URL(request.url);
    if (pathname === ENDPOINT && isUpgrade(request)) {
      const cookies = request.headers.get("cookie");
      const parts = { target: pathname + search, cookies: cookies === null ? [] : [cookies] };
      const { hostname, port } = info.remoteAddr;
      const admitted = await gate.admit(parts, { address: hostname });
      if (admitted.ok) {
        // HTX looks after silent connections itself; the runtime's timer for it would outlive the server.
        const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
        listener.push(socket, { remoteAddr: { transport: "websocket", hostname, port } });
        return response;
      }
    }
    return site.handler(request);
  });

  const kilobytes = (length: number) => `${Math.round(length / 1024)} KiB`;
  console.log(`page on ${httpUrl(front.addr)}/`);
  console.log(`server_pub=${toHex(keyPair.publicKey)}`);
  console.log(`ticket_pub=${toHex(publicKey)}`);
  console.log(`ticket_key_id=${toHex(keyId)}`);
  console.log(`script: ${kilobytes(script.length)}, ${kilobytes(site.scriptGzipLength)} compressed`);
  const endless = { shutdown: () => Promise.resolve(stopping.abort()) };
  // The tunnel first: the end of the server that answered an upgrade is the end of its WebSocket.
  await untilStopped([endless, tunnel], [front]);
});

function isUpgrade(request: Request): boolean {
  return request.method === "GET" && request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

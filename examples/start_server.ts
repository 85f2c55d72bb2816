/**
 * An HTX server on the command line: a raw echo for client_cli.ts to talk to, or a gateway with tickets over an echo.
 *
 *     deno run -N examples/start_server.ts echo 127.0.0.1 9443
 *     deno run -N examples/start_server.ts gateway 127.0.0.1 8080 127.0.0.1 9443 __Host-bn1 0011223344556677
 *
 * Permissions: `-N` (to listen, and to dial the upstream).
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { createGateway, denoFront, httpEcho } from "@betanet/htx/gateway";
import { generateTicketKey, TicketPolicy } from "@betanet/htx/tickets";
import { echo, serveStreams } from "@betanet/htx/transport";
import { type Arguments, hostPort, httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
Starts an HTX server with fresh keys, and prints what its clients have to know.

Usage: deno run -N examples/start_server.ts echo HOST PORT
       deno run -N examples/start_server.ts gateway LISTEN_HOST LISTEN_PORT UP_HOST UP_PORT COOKIE_NAME KEY_ID_HEX

  echo      every stream is answered with its own bytes; see client_cli.ts
  gateway   HTTP on LISTEN_HOST:LISTEN_PORT, open to whoever has a ticket, over an HTTP echo that this process serves
            through HTX on UP_HOST:UP_PORT; see make_cookie.ts and gateway_client.ts

  COOKIE_NAME   name of the cookie that carries tickets, such as __Host-bn1
  KEY_ID_HEX    id of the ticket key, 16 hexadecimal digits
  Every PORT may be 0: the system chooses, and the port is printed.

Exit status: 0 stopped, 1 failed (a port is taken), 2 bad arguments.`;

const positional = {
  echo: ["HOST", "PORT"],
  gateway: ["LISTEN_HOST", "LISTEN_PORT", "UP_HOST", "UP_PORT", "COOKIE_NAME", "KEY_ID_HEX"],
};

await main(
  { help, stays: true, positional },
  (args) => args.word === "echo" ? startEcho(args) : startGateway(args),
);

async function startEcho(args: Arguments): Promise<void> {
  const server = serveStreams(echo(), { hostname: args.text("HOST"), port: args.port("PORT") });
  console.log(`echo on ${hostPort(server.addr)}`);
  console.log(`server_pub=${toHex(server.publicKey)}`);
  await untilStopped([server]);
}

async function startGateway(args: Arguments): Promise<void> {
  const listen = { hostname: args.text("LISTEN_HOST"), port: args.port("LISTEN_PORT") };
  const behind = { hostname: args.text("UP_HOST"), port: args.port("UP_PORT") };
  const cookie = args.cookieName("COOKIE_NAME");
  const ticketKey = generateTicketKey(args.bytes("KEY_ID_HEX", 8));

  const upstream = serveStreams(httpEcho(), behind);
  const gateway = createGateway({
    upstream: { ...upstream.addr, publicKey: upstream.publicKey },
    admission: {
      verifier: { keys: [ticketKey] },
      policy: new TicketPolicy({ cookie }),
      session: { keys: [crypto.getRandomValues(new Uint8Array(32))] },
    },
    decoy: () =>
      new Response("<!doctype html><title>Welcome</title><h1>It works!</h1>\n", {
        headers: { "content-type": "text/html; charset=utf-8" },
      }),
  });
  const front = denoFront(gateway.handler, listen);

  console.log(`gateway on ${httpUrl(front.addr)}/ over ${hostPort(upstream.addr)}`);
  console.log(`server_pub=${toHex(upstream.publicKey)}`);
  console.log(`ticket_pub=${toHex(ticketKey.publicKey)}`);
  console.log(`ticket_key_id=${toHex(ticketKey.keyId)}`);
  await untilStopped([front, gateway], [upstream]);
}

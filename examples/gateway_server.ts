/**
 * A gateway as it would stand before a site: tickets, a decoy, a log line for each request, an orderly end. Behind it
 * is an echo in the same process, at the far end of a session over memory.
 *
 *     deno run -N examples/gateway_server.ts 127.0.0.1 8080
 *
 * Permissions: `-N` (to listen).
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { createGateway, denoFront, httpEcho, localStreams } from "@betanet/htx/gateway";
import { generateTicketKey } from "@betanet/htx/tickets";
import { configure } from "@logtape/logtape";
import { httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
A gateway that asks for tickets, over an echo in the same process. Log lines go to stderr.

Usage: deno run -N examples/gateway_server.ts HOST PORT

  HOST PORT   where it listens; a PORT of 0 lets the system choose

For a gateway with a configuration file see start_from_config.ts, or "deno task gateway".
Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

await main({ help, stays: true, positional: ["HOST", "PORT"] }, async (args) => {
  const listen = { hostname: args.text("HOST"), port: args.port("PORT") };
  // The library says nothing until the application decides what becomes of it.
  await configure({
    sinks: { stderr: (record) => console.error(record.message.join("")) },
    loggers: [
      { category: "htx", sinks: ["stderr"], lowestLevel: "info" },
      { category: ["logtape", "meta"], lowestLevel: "error" },
    ],
  });

  const ticketKey = generateTicketKey();
  const upstream = localStreams(httpEcho());
  const gateway = createGateway({
    upstream,
    admission: {
      verifier: { keys: [ticketKey] },
      session: { keys: [crypto.getRandomValues(new Uint8Array(32))] },
    },
    decoy: () => new Response("Not Found\n", { status: 404 }),
    limits: { bodyBytes: 64 * 1024 ** 2, concurrentRequests: 256, responseTimeoutMs: 10_000 },
  });
  const front = denoFront(gateway.handler, listen);

  const url = httpUrl(front.addr);
  const [pub, id] = [toHex(ticketKey.publicKey), toHex(ticketKey.keyId)];
  console.log(`gateway on ${url}/`);
  console.log(`server_pub=${toHex(upstream.server.publicKey)}`);
  console.log(`ticket_pub=${pub}`);
  console.log(`ticket_key_id=${id}`);
  console.log(
    `try: deno run -N examples/gateway_client.ts ${url}/echo --data hello --ticket-pub ${pub} --key-id ${id}`,
  );
  await untilStopped([front, gateway], [upstream.server]);
});

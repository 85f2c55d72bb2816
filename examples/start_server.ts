/**
 * An HTX server on the command line: a raw echo, for client_cli.ts to talk to.
 *
 *     deno run -N examples/start_server.ts echo 127.0.0.1 9443
 *
 * Permissions: `-N` (to listen).
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { echo, serveStreams } from "@betanet/htx/transport";
import { main, untilStopped } from "./_cli.ts";

const help = `
Starts an HTX server with a fresh key, and prints what a client has to know of it.

Usage: deno run -N examples/start_server.ts echo HOST PORT

  echo      every stream is answered with its own bytes
  PORT      0 lets the system choose

Exit status: 0 stopped, 1 failed (the port is taken), 2 bad arguments.`;

await main({ help, positional: ["echo", "HOST", "PORT"] }, async (args) => {
  args.oneOf("echo", ["echo"]);
  const server = serveStreams(echo(), { hostname: args.text("HOST"), port: args.port("PORT") });
  console.log(`listening on ${server.addr.hostname}:${server.addr.port}`);
  console.log(`server_pub=${toHex(server.publicKey)}`);
  await untilStopped([server]);
});

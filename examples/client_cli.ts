/**
 * Sends a text to an HTX server on a stream of its own and prints the reply.
 *
 *     deno run -N examples/client_cli.ts 127.0.0.1 9443 SERVER_PUB_HEX hello
 *
 * Permissions: `-N` (to dial), or no more than `--allow-net=127.0.0.1:9443`.
 *
 * @module
 */

import { HtxError } from "@betanet/htx/core";
import { publicKeyFromHex } from "@betanet/htx/noise";
import { roundtrip } from "@betanet/htx/transport";
import { Failure, main } from "./_cli.ts";

const help = `
Sends TEXT to an HTX server and prints the reply.

Usage: deno run -N examples/client_cli.ts HOST PORT SERVER_PUB_HEX TEXT

  HOST PORT        where the server listens
  SERVER_PUB_HEX   its public key, as start_server.ts prints it after server_pub=
  TEXT             what to send; "-- TEXT" when it begins with a dash

Exit status: 0 replied, 1 no reply (refused, wrong key), 2 bad arguments.`;

await main({ help, positional: ["HOST", "PORT", "SERVER_PUB_HEX", "TEXT"] }, async (args) => {
  const address = { hostname: args.text("HOST"), port: args.remotePort("PORT") };
  args.key("SERVER_PUB_HEX");
  const remoteStatic = publicKeyFromHex(args.text("SERVER_PUB_HEX"));
  const reply = await roundtrip(address, args.text("TEXT"), { remoteStatic, handshakeTimeoutMs: 5000 }).catch(
    (error) => {
      // A server does not tell why: whoever probes it learns nothing.
      if (!(error instanceof HtxError) || error.code !== "HANDSHAKE_FAILED") throw error;
      const { hostname, port } = address;
      throw new Failure(
        `no handshake with ${hostname}:${port}: is it an HTX server, and SERVER_PUB_HEX its key?`,
      );
    },
  );
  console.log(new TextDecoder().decode(reply));
});

/**
 * An HTX upstream that serves the files of a directory: content types, ETag, ranges, index files; nothing hidden, and
 * nothing from outside of it.
 *
 *     deno run -N --allow-read=public examples/static_upstream.ts 127.0.0.1 9444 public
 *
 * Permissions: `-N` (to listen) and `--allow-read=ROOT`.
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { serve, staticFiles } from "@betanet/htx/transport";
import { Failure, hostPort, main, untilStopped } from "./_cli.ts";

const help = `
Serves the files of a directory to HTX clients, such as a gateway.

Usage: deno run -N --allow-read=ROOT examples/static_upstream.ts HOST PORT ROOT

  PORT   0 lets the system choose
  ROOT   the directory; examples/templates/static_site is one to start with

Exit status: 0 stopped, 1 failed (the port is taken, no such directory), 2 bad arguments.`;

await main({ help, stays: true, positional: ["HOST", "PORT", "ROOT"] }, async (args) => {
  const [hostname, port, root] = [args.text("HOST"), args.port("PORT"), args.text("ROOT")];
  await requireFolder(root);
  const server = serve(staticFiles(root), { hostname, port });
  console.log(`serving ${root} on ${hostPort(server.addr)}`);
  console.log(`server_pub=${toHex(server.publicKey)}`);
  await untilStopped([server]);
});

async function requireFolder(root: string): Promise<void> {
  const info = await Deno.stat(root).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
  if (!info?.isDirectory) throw new Failure(`${root} is not a directory: name one that exists`);
}

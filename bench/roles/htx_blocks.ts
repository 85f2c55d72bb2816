/**
 * Block exchange over this library: blocks of 256 KiB, each checked against its CID.
 *
 *     htx_blocks.ts server <phases>
 *     htx_blocks.ts client <phases: get1, get32, get256> <json of the server's READY line>
 *
 * @module
 */

import { BitswapClient, BitswapServer, cidOf, peerOf } from "../../bitswap/mod.ts";
import { fromHex, toHex } from "../../core/mod.ts";
import { connect, serveStreams } from "../../transport/mod.ts";
import { COUNT, fetchBlocks, makeBlock } from "./_blocks.ts";
import { phase, say } from "./_role.ts";

const [role, phases = "", info = "{}"] = Deno.args;
const names = phases.split(",");
if (role === "server") {
  const blocks = new BitswapServer();
  for (let i = 0; i < COUNT * names.length; i++) await blocks.put(makeBlock(i));
  const server = serveStreams((stream, { remoteStatic }) => blocks.onStream(stream, { remoteStatic }));
  say("READY " + JSON.stringify({ port: server.addr.port, key: toHex(server.publicKey) }));
  await server.finished;
} else {
  const { port, key } = JSON.parse(info);
  const cids = Array.from({ length: COUNT * names.length }, (_, i) => cidOf(makeBlock(i)));
  const tunnel = await connect({ hostname: "127.0.0.1", port }, { remoteStatic: fromHex(key) });
  const client = new BitswapClient({
    peers: [peerOf("server", tunnel)],
    blockstore: new BitswapServer().blockstore,
  });
  for (const [index, name] of names.entries()) {
    const depth = Number(name.slice(3));
    const count = depth === 1 ? Math.max(1, COUNT >> 4) : COUNT;
    await phase(
      name,
      () => fetchBlocks(index * COUNT, count, depth, async (i) => (await client.get(cids[i]!)).length),
    );
  }
  Deno.exit(0);
}

/**
 * What of this folder has to run without Deno: bundled and started in Node by `node_test.ts`.
 *
 * @module
 */

import { addFile, BitswapClient, BitswapServer, catFile, httpGateway, openDirectory, streamOf } from "../mod.ts";

/** Runs everything; the lines say what was seen. */
export async function smoke(directory: string): Promise<string[]> {
  if (Reflect.has(globalThis, "Deno")) throw new Error("Deno is here");
  const server = new BitswapServer();
  const { cid } = await addFile(server.blockstore, new Uint8Array(1_000_000));
  // `await using` is no word of Node 20.
  const client = new BitswapClient({
    peers: [{
      id: "server",
      openStream() {
        const [there, back] = [new TransformStream<Uint8Array>(), new TransformStream<Uint8Array>()];
        void server.handleStream(streamOf({ readable: there.readable, writable: back.writable }));
        return Promise.resolve(streamOf({ readable: back.readable, writable: there.writable }));
      },
    }],
    blockstore: await openDirectory(directory),
  });
  let length = 0;
  for await (const piece of catFile(client, cid)) length += piece.length;
  await client.close();
  const handler = httpGateway({ blockstore: client.blockstore! });
  const block = await handler(new Request(`http://store/ipfs/${cid}?format=raw`));
  return [`file ${length}`, `block ${block.status}`];
}

import { assertEquals } from "@std/assert";
import { VerifiedBlockstore } from "./blockstore.ts";
import { BitswapClient } from "./client.ts";
import { type BitswapDuplex, type BitswapPeer, streamOf } from "./peer.ts";
import { BitswapServer } from "./server.ts";
import { testBlocks } from "./_testing.ts";

/** A pipe over a byte stream, whose `enqueue` transfers the chunk's buffer as the Streams standard has it. */
function bytePipe(): BitswapDuplex {
  let controller: ReadableByteStreamController;
  const readable = new ReadableStream({
    type: "bytes",
    start(made) {
      controller = made;
    },
  });
  const writable = new WritableStream<Uint8Array<ArrayBuffer>>({
    write: (chunk) => controller.enqueue(chunk),
    close: () => controller.close(),
  });
  return { readable, writable };
}

Deno.test("e-35 streamOf() gives no array of its caller to a writable that transfers it", async () => {
  const { readable, writable } = bytePipe();
  const stream = streamOf({ readable, writable });
  const bytes = new Uint8Array([1, 2, 3]);
  await stream.write(bytes);
  assertEquals(bytes, new Uint8Array([1, 2, 3]));
  assertEquals(await stream.read(), bytes);
  await stream.closeWrite();
  assertEquals(await stream.read(), null);
});

Deno.test("e-35 a server over byte streams still has its block after it was sent", async () => {
  const server = new BitswapServer({ blockstore: new VerifiedBlockstore() });
  const [block] = testBlocks(1, 5000);
  const cid = await server.put(block!);
  const peer = (id: string): BitswapPeer => ({
    id,
    openStream() {
      const [there, back] = [bytePipe(), bytePipe()];
      void server.handleStream(streamOf({ readable: there.readable, writable: back.writable }), { peer: id });
      return Promise.resolve(streamOf({ readable: back.readable, writable: there.writable }));
    },
  });
  for (const id of ["first", "second"]) {
    await using client = new BitswapClient({ peers: [peer(id)] });
    assertEquals(await client.get(cid), block);
  }
  assertEquals(await server.blockstore.getBytes(cid), block);
});

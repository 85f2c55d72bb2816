/** The exchange over real HTX sessions: TCP on loopback, other processes, connections that break. */

import { assert, assertEquals } from "@std/assert";
import { KeyPair } from "../noise/mod.ts";
import { acceptDuplex, connect, connectDuplex, memoryDuplexPair, serveStreams } from "../transport/mod.ts";
import { MemoryBlockstore } from "./blockstore.ts";
import { cidOf } from "./cid.ts";
import { BitswapClient } from "./client.ts";
import { addFile, catFile } from "./files.ts";
import { peerOf } from "./peer.ts";
import { BitswapServer } from "./server.ts";
import { longRun, testBlocks } from "./_testing.ts";

async function serverWith(blocks: readonly Uint8Array[]): Promise<BitswapServer> {
  const server = new BitswapServer();
  for (const block of blocks) await server.put(block);
  return server;
}

Deno.test("blocks and files come over TCP", async () => {
  const blocks = testBlocks(300, 50_000);
  const server = await serverWith(blocks);
  const file = testBlocks(1, 2_000_000, 7)[0]!;
  const { cid } = await addFile(server.blockstore, file);
  await using listening = serveStreams(server.onStream);
  await using tunnel = await connect(listening.addr, { remoteStatic: listening.publicKey });
  await using client = new BitswapClient({ peers: [peerOf("server", tunnel)] });
  let count = 0;
  for await (const block of client.getMany(blocks.map((block) => cidOf(block)), { bufferBytes: 500_000 })) {
    assertEquals(cidOf(block.bytes).toString(), block.cid.toString());
    count++;
  }
  assertEquals(count, 300);
  let at = 0;
  for await (const piece of catFile(client, cid)) {
    assertEquals(piece, file.subarray(at, at + piece.length));
    at += piece.length;
  }
  assertEquals(at, file.length);
  const [ledger] = server.ledgers;
  assertEquals(ledger!.peer.length, 64);
  assert(ledger!.blocksSent > 300);
});

Deno.test("blocks come over a session in memory, from connections rather than streams", async () => {
  const server = await serverWith(testBlocks(20, 10_000));
  const [here, there] = memoryDuplexPair();
  const keyPair = KeyPair.generate();
  const [mine, theirs] = await Promise.all([
    connectDuplex(here, { remoteStatic: keyPair.publicKey }),
    acceptDuplex(there, { keyPair }),
  ]);
  const handled = server.handleConnection(theirs, { peer: "client" });
  {
    await using client = new BitswapClient({ peers: [peerOf("server", mine)] });
    const got = await Array.fromAsync(client.getMany(testBlocks(20, 10_000).map((block) => cidOf(block))));
    assertEquals(got.length, 20);
  }
  await mine.close();
  await handled;
  assertEquals(server.ledger("client")!.streams, 0);
  assertEquals(server.ledger("client")!.blocksSent, 20);
});

Deno.test("e-35 three servers over TCP, one lying, one stalling: all blocks, duplicates at most 2 %", async () => {
  const length = longRun() ? 262_144 : 16_384;
  const blocks = testBlocks(1000, length);
  const thirds = [0, 1, 2].map((i) => blocks.filter((_, at) => at % 3 === i));
  const honest = await serverWith([...thirds[0]!, ...thirds[1]!, ...thirds[2]!]);
  const liar = await serverWith(thirds[0]!);
  const staller = await serverWith(thirds[1]!);
  let told = 0;
  await using one = serveStreams((stream) =>
    liar.handleStream({
      read: () => stream.read(),
      // Every eighth block is another one.
      write: (data) =>
        stream.write(data.length === length && ++told % 8 === 0 ? data.map((byte) => byte ^ 1) : data),
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    })
  );
  const never = Promise.withResolvers<void>();
  await using two = serveStreams((stream) => {
    let left = 20 * length;
    stream.closed.catch(() => never.resolve());
    return staller.handleStream({
      read: () => stream.read(),
      write: (data) => (left -= data.length) < 0 ? never.promise : stream.write(data),
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    });
  });
  await using three = serveStreams(honest.onStream);
  const tunnels = [];
  for (const { addr, publicKey } of [one, two, three]) {
    tunnels.push(await connect(addr, { remoteStatic: publicKey }));
  }
  const dropped: string[] = [];
  const client = new BitswapClient({
    peers: tunnels.map((tunnel, i) => peerOf(["liar", "staller", "honest"][i]!, tunnel)),
    stallTimeoutMs: 500,
    onPeerDropped: ({ peer, reason }) => dropped.push(`${peer}: ${reason}`),
  });
  const seen = new Set<string>();
  for await (const block of client.getMany(blocks.map((block) => cidOf(block)))) {
    assertEquals(cidOf(block.pieces).toString(), block.cid.toString());
    seen.add(block.cid.toString());
  }
  const peers = client.peers;
  await client.close();
  for (const tunnel of tunnels) await tunnel.close();
  assertEquals(seen.size, 1000);
  assert(dropped.includes("liar: wrong-blocks"), dropped.join());
  const duplicates = peers.reduce((sum, { duplicateBytes }) => sum + duplicateBytes, 0);
  assert(duplicates <= 0.02 * 1000 * length, `${duplicates}`);
});

Deno.test("a fetch goes on when the server was killed halfway and started again", async () => {
  const count = 400;
  const length = longRun() ? 262_144 : 32_768;
  const key = KeyPair.generate();
  const start = async (port: number): Promise<{ child: Deno.ChildProcess; port: number }> => {
    const child = new Deno.Command("deno", {
      args: [
        "run",
        "--quiet",
        "-A",
        new URL("./testdata/serve_blocks.ts", import.meta.url).href,
        `${port}`,
        key.exportPrivateHex(),
        `${count}`,
        `${length}`,
      ],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return { child, port: Number(value) };
  };
  const cids = testBlocks(count, length).map((block) => cidOf(block));
  let server = await start(0);
  const tunnel = await connect(
    { hostname: "127.0.0.1", port: server.port },
    { remoteStatic: key.publicKey },
  );
  const store = new MemoryBlockstore();
  const client = new BitswapClient({
    peers: [peerOf("server", tunnel)],
    blockstore: store,
    reconnectDelayMs: 20,
  });
  let restarted: Promise<void> | undefined;
  let fetched = 0;
  try {
    for await (const block of client.getMany(cids, { bufferBytes: 20 * length })) {
      assertEquals(cidOf(block.pieces).toString(), block.cid.toString());
      if (++fetched === count / 2) {
        server.child.kill("SIGKILL");
        await server.child.status;
        // Nobody listens for a while.
        restarted = start(server.port).then((again) => void (server = again));
      }
    }
    assertEquals(fetched, count);
    assertEquals(store.size, count);
    const [peer] = client.peers;
    assertEquals([peer!.blocks, peer!.wrongBlocks], [count, 0]);
    assertEquals(peer!.duplicates, 0);
  } finally {
    await restarted;
    await client.close();
    await tunnel.close();
    server.child.kill("SIGKILL");
    await server.child.status;
  }
});

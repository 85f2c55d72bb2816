import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { concat, HtxError, utf8 } from "./_core.ts";
import { BlockNotFoundError, MemoryBlockstore, VerifiedBlockstore } from "./blockstore.ts";
import { type CID, cidOf, joinBlock, parseCid } from "./cid.ts";
import { BitswapClient, type Block, type BlockProgress, type PeerDropped } from "./client.ts";
import {
  type BitswapMessage,
  decodeMessage,
  encodeFramed,
  MAX_BLOCK_LENGTH,
  MessageDeframer,
} from "./message.ts";
import { type BitswapPeer, type BitswapStream, connectionPeer, readProtocol } from "./peer.ts";
import { BitswapServer } from "./server.ts";
import { identityCid, longRun, memoryPeer, peerOf, serverWith, streamPair, testBlocks } from "./_testing.ts";

const HELLO = utf8("hello");
const HELLO_CID = cidOf(HELLO);
const RAW_PREFIX = new Uint8Array([1, 0x55, 0x12, 0x20]);

/** A peer that answers each message by hand. */
function scripted(
  id: string,
  answer: (message: BitswapMessage, stream: BitswapStream) => void | Promise<void>,
): BitswapPeer {
  return memoryPeer(id, async (stream) => {
    try {
      const protocol = await readProtocol(stream);
      const deframer = new MessageDeframer();
      for (let chunk = protocol?.rest ?? null; chunk !== null; chunk = await stream.read()) {
        for (const pieces of deframer.push(chunk)) await answer(decodeMessage(joinBlock(pieces)), stream);
      }
      await stream.closeWrite();
    } catch {
      // The client has had enough.
    }
  });
}

async function say(stream: BitswapStream, message: Parameters<typeof encodeFramed>[0]): Promise<void> {
  await stream.write(concat(...encodeFramed(message)));
}

/** Says that it has everything, and sends `wrong` for each want-block. */
function liar(id: string, wrong: (cid: Uint8Array) => Uint8Array): BitswapPeer {
  return scripted(id, async ({ wantlist }, stream) => {
    for (const { cid, cancel, wantType } of wantlist?.entries ?? []) {
      if (cancel) continue;
      if (wantType === "have") await say(stream, { blockPresences: [{ cid, type: "have" }] });
      else await say(stream, { payload: [{ prefix: RAW_PREFIX, data: wrong(cid) }] });
    }
  });
}

/** Says that it has everything, and sends nothing. */
function staller(id: string): BitswapPeer {
  return scripted(id, async ({ wantlist }, stream) => {
    for (const { cid, cancel, wantType } of wantlist?.entries ?? []) {
      if (!cancel && wantType === "have") await say(stream, { blockPresences: [{ cid, type: "have" }] });
    }
  });
}

Deno.test("get() gives the block of one peer, at once and again", async () => {
  const server = await serverWith([HELLO]);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(await client.get(cidOf(HELLO, 0x70)), HELLO);
  assertEquals(
    await client.get(parseCid("12202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")),
    HELLO,
  );
});

Deno.test("e-35 an empty block is got as an empty block, an absent one as an error", async () => {
  const server = await serverWith([new Uint8Array()]);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  assertEquals(await client.get(cidOf(new Uint8Array())), new Uint8Array());
  const error = await assertRejects(() => client.get(HELLO_CID), BlockNotFoundError);
  assertEquals([error.name, error.cids.map(String)], ["NotFoundError", [HELLO_CID.toString()]]);
});

Deno.test("get() and getMany() take an identity CID's block from the CID: nobody is asked, nothing is stored", async () => {
  const peer = memoryPeer("a", () => {
    throw new Error("asked");
  });
  for (const blockstore of [undefined, new MemoryBlockstore()]) {
    await using client = new BitswapClient({ peers: [peer], ...(blockstore && { blockstore }) });
    const longest = new Uint8Array(128).fill(7);
    const cids = [HELLO, new Uint8Array(), longest].map((block) => identityCid(block));
    const progress: (number | string | undefined)[][] = [];
    const onProgress = ({ length, peer, blocks, bytes }: BlockProgress): unknown =>
      progress.push([length, peer, blocks, bytes]);
    const got = await client.get(cids[0]!, { onProgress });
    assertEquals(got, HELLO);
    got.fill(0);
    assertEquals(await client.get(cids[0]!), HELLO);
    assertEquals(progress.splice(0), [[5, undefined, 1, 5]]);
    const blocks = await Array.fromAsync(client.getMany(cids, { onProgress }), ({ bytes }) => bytes);
    assertEquals(blocks, [HELLO, new Uint8Array(), longest]);
    assertEquals(progress, [[5, undefined, 1, 5], [0, undefined, 2, 5], [128, undefined, 3, 133]]);
    const tooLong = identityCid(new Uint8Array(129));
    assertEquals((await assertRejects(() => client.get(tooLong), HtxError)).code, "LIMIT_EXCEEDED");
    const many = Array.fromAsync(client.getMany([tooLong]));
    assertEquals((await assertRejects(() => many, HtxError)).code, "LIMIT_EXCEEDED");
    assertEquals(blockstore?.size ?? 0, 0);
  }
});

Deno.test("getMany() gives more inlined blocks than it has room for at once, and no more of them than are read", async () => {
  await using client = new BitswapClient();
  const cids = Array.from({ length: 1000 }, (_, i) => identityCid(new Uint8Array([i >> 8, i])));
  let taken = 0;
  function* source(): Generator<CID> {
    for (const cid of cids) {
      taken++;
      yield cid;
    }
  }
  let got = 0;
  for await (const { cid } of client.getMany(source())) {
    assertEquals(cid.toString(), cids[got]!.toString());
    got++;
    assert(taken <= got + 64, `${taken} taken, ${got} got`);
  }
  assertEquals(got, 1000);
});

Deno.test("getMany() gives all blocks of three servers, each once, with progress", async () => {
  const blocks = testBlocks(300, 3000);
  const cids = blocks.map((block) => cidOf(block));
  const servers = [];
  for (let i = 0; i < 3; i++) servers.push(await serverWith(blocks.filter((_, at) => at % 3 === i)));
  const progress: BlockProgress[] = [];
  await using client = new BitswapClient({ peers: servers.map((server, i) => peerOf(`p${i}`, server)) });
  const got = new Map<string, Block>();
  for await (const block of client.getMany(cids, { onProgress: (event) => progress.push(event) })) {
    got.set(block.cid.toString(), block);
  }
  assertEquals(got.size, 300);
  for (const [i, cid] of cids.entries()) assertEquals(got.get(cid.toString())!.bytes, blocks[i]!);
  assertEquals([progress.length, progress.at(-1)!.blocks, progress.at(-1)!.bytes], [300, 300, 900_000]);
  assertEquals(new Set(progress.map(({ peer }) => peer)), new Set(["p0", "p1", "p2"]));
  assertEquals(client.peers.map(({ blocks }) => blocks), [100, 100, 100]);
  assertEquals(client.peers.map(({ duplicates }) => duplicates), [0, 0, 0]);
});

Deno.test("two streams are busy per peer", async () => {
  const blocks = testBlocks(64, 1000);
  const server = await serverWith(blocks);
  const busy = new Map<BitswapStream, number>();
  const peer = memoryPeer("a", (stream) => {
    busy.set(stream, 0);
    const counting: BitswapStream = {
      read: () => stream.read(),
      write: (data) => {
        busy.set(stream, busy.get(stream)! + data.length);
        return stream.write(data);
      },
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    };
    void server.handleStream(counting);
  });
  await using client = new BitswapClient({ peers: [peer] });
  const all = await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  assertEquals(all.length, 64);
  assertEquals(busy.size, 2);
  for (const bytes of busy.values()) assert(bytes > 20_000, `${bytes}`);
});

Deno.test("getMany() gives what there is, then says what is not", async () => {
  const blocks = testBlocks(10, 100);
  const server = await serverWith(blocks.slice(0, 8));
  await using client = new BitswapClient({ peers: [peerOf("a", server), peerOf("b", await serverWith([]))] });
  const got: Block[] = [];
  const error = await assertRejects(async () => {
    for await (const block of client.getMany(blocks.map((block) => cidOf(block)))) got.push(block);
  }, BlockNotFoundError);
  assertEquals(got.length, 8);
  assertEquals(error.cids.map(String).sort(), blocks.slice(8).map((block) => cidOf(block).toString()).sort());
});

Deno.test("e-35 three wrong blocks end a peer's session, and its wants are asked elsewhere", async () => {
  const blocks = testBlocks(40, 2000);
  const cids = blocks.map((block) => cidOf(block));
  for (
    const wrong of [
      (): Uint8Array => utf8("lie"),
      (cid: Uint8Array): Uint8Array => cid,
      (): Uint8Array => new Uint8Array(),
      (cid: Uint8Array): Uint8Array =>
        blocks[cids.findIndex((each) => joinBlock([cid]).every((byte, i) => byte === each.bytes[i]))]!
          .subarray(1),
      (): Uint8Array => new Uint8Array(MAX_BLOCK_LENGTH + 1),
    ]
  ) {
    const dropped: PeerDropped[] = [];
    await using client = new BitswapClient({
      peers: [liar("liar", wrong), peerOf("good", await serverWith(blocks))],
      onPeerDropped: (event) => dropped.push(event),
    });
    const got = await Array.fromAsync(client.getMany(cids));
    assertEquals(got.length, 40);
    for (const { cid, bytes } of got) assertEquals(cidOf(bytes).toString(), cid.toString());
    assertEquals(dropped.map(({ peer, reason }) => [peer, reason]), [["liar", "wrong-blocks"]]);
    // It is not asked again.
    const more = utf8("more");
    await assertRejects(() => client.get(cidOf(more)), BlockNotFoundError);
    assertThrows(() => client.addPeer(peerOf("good", new BitswapServer())), TypeError);
  }
});

Deno.test("one wrong block costs its want no waiting: it is asked elsewhere at once", async () => {
  const lies = liar("liar", () => utf8("lie"));
  await using client = new BitswapClient({ peers: [lies, peerOf("good", await serverWith([HELLO]))] });
  assertEquals(await client.get(HELLO_CID), HELLO);
  await using alone = new BitswapClient({ peers: [liar("liar", () => utf8("lie"))] });
  await assertRejects(() => alone.get(HELLO_CID), BlockNotFoundError);
});

Deno.test("when every peer has lied there is nobody left to ask", async () => {
  await using client = new BitswapClient({
    peers: ["a", "b"].map((id) => liar(id, () => utf8("lie"))),
    maxWrongBlocks: 1,
  });
  const error = await assertRejects(() => client.get(HELLO_CID), HtxError);
  assertEquals(error.code, "CONNECT_FAILED");
});

Deno.test("a peer that stalls is dropped, and its wants are asked elsewhere", async () => {
  const blocks = testBlocks(60, 500);
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: [staller("staller"), peerOf("good", await serverWith(blocks))],
    stallTimeoutMs: 60,
    stealAfterMs: 1e9,
    onPeerDropped: (event) => dropped.push(event),
  });
  const got = await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  assertEquals(got.length, 60);
  assertEquals(dropped.map(({ peer, reason }) => [peer, reason]), [["staller", "stalled"]]);
});

Deno.test("what a slow peer owes is taken over by an idle one before the stall is called", async () => {
  const blocks = testBlocks(30, 500);
  await using client = new BitswapClient({
    peers: [staller("staller"), peerOf("good", await serverWith(blocks))],
    stallTimeoutMs: 60_000,
    stealAfterMs: 20,
  });
  const got = await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  assertEquals(got.length, 30);
});

Deno.test("a peer that breaks the protocol is dropped", async () => {
  for (const bytes of [[0x02, 0x0a, 0x05], [0x81, 0x80, 0x80, 0x02]]) {
    const dropped: PeerDropped[] = [];
    await using client = new BitswapClient({
      peers: [
        scripted("bad", (_, stream) => stream.write(new Uint8Array(bytes))),
        peerOf("good", await serverWith([HELLO])),
      ],
      onPeerDropped: (event) => dropped.push(event),
    });
    assertEquals(await client.get(HELLO_CID), HELLO);
    await assertRejects(() => client.get(cidOf(utf8("other"))), BlockNotFoundError);
    assertEquals(dropped.map(({ reason }) => reason), ["protocol-error"]);
  }
});

Deno.test("a broken stream, or connection, is opened again and the fetch goes on", async () => {
  const blocks = testBlocks(200, 2000);
  const server = await serverWith(blocks);
  let opened = 0;
  const peer = memoryPeer("a", (stream) => {
    opened++;
    let left = 60_000;
    void server.handleStream({
      read: () => stream.read(),
      write: async (data) => {
        left -= data.length;
        if (left < 0) stream.reset("INTERNAL_ERROR");
        await stream.write(data);
      },
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    });
  });
  await using client = new BitswapClient({ peers: [peer], reconnectDelayMs: 1 });
  const got = await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  assertEquals(got.length, 200);
  assert(opened > 4, `${opened}`);
});

Deno.test("a peer that cannot be reached is tried again, then given up, and asked again by a later get", async () => {
  const server = await serverWith([HELLO]);
  let fail = 3;
  let tries = 0;
  const peer: BitswapPeer = {
    id: "a",
    openStream(signal) {
      tries++;
      if (fail-- > 0) return Promise.reject(new HtxError("CONNECT_FAILED", "Cannot connect: refused"));
      return peerOf("a", server).openStream(signal);
    },
  };
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: [peer],
    reconnectDelayMs: 1,
    reconnectTimeoutMs: 20,
    streamsPerPeer: 1,
    onPeerDropped: (event) => dropped.push(event),
  });
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(tries, 4);

  await using other = new BitswapClient({
    peers: [{ ...peer, id: "b" }],
    reconnectDelayMs: 1,
    reconnectTimeoutMs: 20,
    onPeerDropped: (event) => dropped.push(event),
  });
  fail = 1e9;
  const error = await assertRejects(() => other.get(HELLO_CID), HtxError);
  assertEquals([error.code, (error.cause as HtxError).code], ["CONNECT_FAILED", "CONNECT_FAILED"]);
  assertEquals(dropped.map(({ peer, reason }) => [peer, reason]), [["b", "unreachable"]]);
  fail = 0;
  assertEquals(await other.get(HELLO_CID), HELLO);
});

Deno.test("without peers a get fails at once", async () => {
  await using client = new BitswapClient();
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CONNECT_FAILED");
});

Deno.test("a client with a store fetches nothing twice, and keeps what it fetched verified", async () => {
  const blocks = testBlocks(20, 1000);
  const server = await serverWith(blocks);
  const inner = new MemoryBlockstore();
  const cids = blocks.map((block) => cidOf(block));
  await using client = new BitswapClient({ peers: [peerOf("a", server)], blockstore: inner });
  assertEquals((await Array.fromAsync(client.getMany(cids))).length, 20);
  const got = await client.get(cids[0]!);
  got.fill(0);
  assertEquals(await client.get(cids[0]!), blocks[0]!);
  assertEquals((await Array.fromAsync(client.getMany(cids))).length, 20);
  assertEquals(server.ledger("client")!.blocksSent, 20);
  // e-35: what went bad here is fetched again.
  void inner.put(cids[3]!, HELLO);
  assertEquals(await client.get(cids[3]!), blocks[3]!);
  assertEquals(server.ledger("client")!.blocksSent, 21);
  assertEquals(await new VerifiedBlockstore(inner).getBytes(cids[3]!), blocks[3]!);
  assertEquals((await client.put(HELLO)).toString(), HELLO_CID.toString());
  assertEquals(await client.get(HELLO_CID), HELLO);
});

Deno.test("a store that is full fails the get, and says so", async () => {
  const server = await serverWith([HELLO]);
  await using client = new BitswapClient({
    peers: [peerOf("a", server)],
    blockstore: new MemoryBlockstore({ maxBytes: 4 }),
  });
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "STORE_FAILED");
  await using bare = new BitswapClient();
  await assertRejects(() => bare.put(HELLO), TypeError);
});

Deno.test("get() and getMany() heed their signal, and take their wants back", async () => {
  const cancelled: string[] = [];
  const peer = scripted("a", ({ wantlist }) => {
    for (const { cid, cancel } of wantlist?.entries ?? []) {
      if (cancel) cancelled.push(parseCid(cid).toString());
    }
  });
  await using client = new BitswapClient({ peers: [peer] });
  const controller = new AbortController();
  const one = client.get(HELLO_CID, { signal: controller.signal });
  const other = cidOf(utf8("other"));
  const many = Array.fromAsync(client.getMany([HELLO_CID, other], { signal: controller.signal }));
  const still = client.get(other);
  await new Promise((resolve) => setTimeout(resolve, 5));
  controller.abort(new Error("enough"));
  await assertRejects(() => one, Error, "enough");
  await assertRejects(() => many, Error, "enough");
  await new Promise((resolve) => setTimeout(resolve, 5));
  // `other` is still wanted by someone else.
  assertEquals(cancelled, [HELLO_CID.toString()]);
  await assertRejects(
    () => client.get(HELLO_CID, { signal: AbortSignal.abort(new Error("before")) }),
    Error,
    "before",
  );
  await client.close();
  assertEquals((await assertRejects(() => still, HtxError)).code, "CLOSED");
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CLOSED");
});

Deno.test("leaving the loop of getMany() early takes back what is still wanted, and ends the source", async () => {
  const blocks = testBlocks(100, 1000);
  const server = await serverWith(blocks);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  let ended = false;
  async function* source(): AsyncGenerator<CID> {
    try {
      for (const block of blocks) yield await Promise.resolve(cidOf(block));
    } finally {
      ended = true;
    }
  }
  for await (const block of client.getMany(source())) if (block.length > 0) break;
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert(ended);
  assertEquals(await client.get(cidOf(blocks[99]!)), blocks[99]!);
});

Deno.test("a slow consumer of getMany() slows the fetch down", async () => {
  const blocks = testBlocks(400, 10_000);
  const server = await serverWith(blocks);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  const cids = blocks.map((block) => cidOf(block));
  let count = 0;
  for await (const _ of client.getMany(cids, { bufferBytes: 200_000 })) {
    if (++count === 100) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const sent = server.ledger("client")!.blocksSent;
      assert(sent <= 200, `${sent} sent`);
    }
  }
  assertEquals(count, 400);
});

Deno.test("what a failing source of CIDs throws comes out of getMany()", async () => {
  await using client = new BitswapClient({ peers: [peerOf("a", await serverWith([HELLO]))] });
  function* source(): Generator<CID> {
    yield HELLO_CID;
    throw new Error("no more");
  }
  const got: Block[] = [];
  await assertRejects(
    async () => {
      for await (const block of client.getMany(source())) got.push(block);
    },
    Error,
    "no more",
  );
  const sha1 = parseCid(new Uint8Array([1, 0x55, 0x11, 20, ...new Uint8Array(20)]));
  assertEquals((await assertRejects(() => client.get(sha1), HtxError)).code, "UNSUPPORTED");
  assertEquals((await assertRejects(() => client.getMany([sha1]).next(), HtxError)).code, "UNSUPPORTED");
});

Deno.test("asking for one block many times at once fetches it once", async () => {
  const server = await serverWith([HELLO]);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  const gets = await Promise.all(Array.from({ length: 50 }, () => client.get(HELLO_CID)));
  assertEquals(gets.length, 50);
  const twice = await Array.fromAsync(client.getMany([HELLO_CID, HELLO_CID]));
  assertEquals(twice.length, 2);
  assertEquals(server.ledger("client")!.blocksSent, 2);
});

Deno.test("e-35 three servers, one lying, one stalling: every block, verified, duplicates at most 2 %", async () => {
  // 1 000 blocks of 256 KiB in the long run, a sixteenth of the bytes in the short one.
  const length = longRun() ? 262_144 : 16_384;
  const blocks = testBlocks(1000, length);
  const cids = blocks.map((block) => cidOf(block));
  const servers: BitswapServer[] = [];
  for (let i = 0; i < 3; i++) servers.push(await serverWith(blocks.filter((_, at) => at % 3 === i)));

  /** Serves its third, and spoils every eighth block. */
  const lying = memoryPeer("lying", (stream) => {
    let blocksSent = 0;
    void servers[0]!.handleStream({
      read: () => stream.read(),
      write: (data) => {
        if (data.length < length) return stream.write(data);
        return stream.write(++blocksSent % 8 === 0 ? data.map((byte) => byte ^ 1) : data);
      },
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    });
  });
  /** Serves its third, and stops in the middle of a block. */
  const stalling = memoryPeer("stalling", (stream) => {
    let left = 30 * length;
    void servers[1]!.handleStream({
      read: () => stream.read(),
      write: (data) => {
        left -= data.length;
        return left < 0 ? new Promise(() => {}) : stream.write(data);
      },
      closeWrite: () => stream.closeWrite(),
      reset: (code) => stream.reset(code),
    });
  });
  // What the two do not give is with an honest one too: else it could not be had at all.
  for (const [i, block] of blocks.entries()) if (i % 3 !== 2) await servers[2]!.put(block);

  const dropped: string[] = [];
  await using client = new BitswapClient({
    peers: [lying, stalling, peerOf("honest", servers[2]!)],
    stallTimeoutMs: 300,
    onPeerDropped: ({ peer, reason }) => dropped.push(`${peer}: ${reason}`),
  });
  const seen = new Set<string>();
  let bytes = 0;
  for await (const block of client.getMany(cids)) {
    assertEquals(cidOf(block.bytes).toString(), block.cid.toString());
    seen.add(block.cid.toString());
    bytes += block.length;
  }
  assertEquals(seen.size, 1000);
  assertEquals(bytes, 1000 * length);
  assert(dropped.includes("lying: wrong-blocks"), dropped.join());
  const duplicates = client.peers.reduce((sum, peer) => sum + peer.duplicateBytes, 0);
  assert(duplicates <= 0.02 * bytes, `${duplicates} of ${bytes}`);
});

Deno.test("connectionPeer() shares one connection, and dials again when it has ended", async () => {
  const server = await serverWith([HELLO]);
  let dialled = 0;
  let end = Promise.withResolvers<void>();
  const peer = connectionPeer("a", () => {
    dialled++;
    const closed = end = Promise.withResolvers<void>();
    let over = false;
    void closed.promise.then(() => over = true);
    return Promise.resolve({
      closed: closed.promise,
      createBidirectionalStream: () => {
        if (over) return Promise.reject(new HtxError("CLOSED", "Cannot open stream: closed"));
        const [mine, theirs] = streamPair();
        void closed.promise.then(() => mine.reset());
        void server.handleStream(theirs);
        return Promise.resolve(mine);
      },
    });
  });
  await using client = new BitswapClient({ peers: [peer], reconnectDelayMs: 1 });
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(dialled, 1);
  end.resolve();
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(dialled, 2);
});

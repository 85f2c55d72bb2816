/** What a client does when a peer, or its own caller, behaves otherwise than one would wish. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { HtxError, utf8 } from "./_core.ts";
import { type Blockstore, MemoryBlockstore } from "./blockstore.ts";
import { type CID, cidOf } from "./cid.ts";
import { BitswapClient, type BitswapClientOptions, type PeerDropped } from "./client.ts";
import { encodeFramed } from "./message.ts";
import {
  type BitswapConnection,
  type BitswapPeer,
  type BitswapStream,
  connectionPeer,
  readProtocol,
} from "./peer.ts";
import { BitswapServer } from "./server.ts";
import { memoryPeer, peerOf, serverWith, storeWith, testBlocks } from "./_testing.ts";

const HELLO = utf8("hello");
const HELLO_CID = cidOf(HELLO);

interface Fate {
  /** How the get ended. */
  readonly code: string;
  /** Streams opened for it. */
  readonly streams: number;
  /** Peers dropped, and the code of the error behind it. */
  readonly dropped: (string | undefined)[];
}

/** What becomes of a get when the only peer handles each stream so. */
async function fateOf(
  handle: (stream: BitswapStream) => unknown,
  options: BitswapClientOptions = {},
): Promise<Fate> {
  let streams = 0;
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: [memoryPeer("peer", (stream) => {
      streams++;
      handle(stream);
    })],
    reconnectDelayMs: 1,
    onPeerDropped: (event) => dropped.push(event),
    ...options,
  });
  const error = await assertRejects(() => client.get(HELLO_CID), HtxError);
  return {
    code: error.code,
    streams,
    dropped: dropped.map(({ reason, error }) => `${reason} ${error instanceof HtxError ? error.code : ""}`),
  };
}

Deno.test("a peer that refuses Bitswap is given up at once", async () => {
  for (const streamsPerPeer of [1, 2]) {
    const fate = await fateOf((stream) => stream.reset("REFUSED"), { streamsPerPeer });
    assertEquals([fate.code, fate.dropped], ["CONNECT_FAILED", ["unreachable REFUSED"]]);
    assert(fate.streams <= 2 * streamsPerPeer, `${fate.streams}`);
  }
});

Deno.test("a peer that ends each stream without a word is given up after so many", async () => {
  const ways: [(stream: BitswapStream) => unknown, string][] = [
    [(stream) => stream.reset("INTERNAL_ERROR"), "unreachable INTERNAL_ERROR"],
    [(stream) => stream.closeWrite(), "unreachable "],
    [async (stream) => {
      await readProtocol(stream);
      stream.reset("EXCESSIVE_LOAD");
    }, "unreachable EXCESSIVE_LOAD"],
    // It has the block, and will not give it.
    [async (stream) => {
      await readProtocol(stream);
      for (const piece of encodeFramed({ blockPresences: [{ cid: HELLO_CID.bytes, type: "have" }] })) {
        await stream.write(piece);
      }
      // Heard before the reset, which takes away what is unread.
      setTimeout(() => stream.reset("EXCESSIVE_LOAD"), 1);
    }, "unreachable EXCESSIVE_LOAD"],
  ];
  for (const [handle, reason] of ways) {
    const fate = await fateOf(handle, { maxFruitlessStreams: 3, streamsPerPeer: 1 });
    assertEquals(fate, { code: "CONNECT_FAILED", streams: 3, dropped: [reason] });
  }
  const usual = await fateOf((stream) => stream.reset("INTERNAL_ERROR"), { streamsPerPeer: 1 });
  assertEquals(usual.streams, 8);
});

Deno.test("a connection that breaks is no peer without a word: it is dialled until the timeout", async () => {
  const server = await serverWith([HELLO]);
  let streams = 0;
  const peer: BitswapPeer = {
    id: "a",
    async openStream(signal) {
      const stream = await peerOf("a", server).openStream(signal);
      if (++streams > 12) return stream;
      return { ...stream, read: () => Promise.reject(new HtxError("TRUNCATED", "Connection broke")) };
    },
  };
  await using client = new BitswapClient({ peers: [peer], reconnectDelayMs: 0.1, maxFruitlessStreams: 2 });
  assertEquals(await client.get(HELLO_CID), HELLO);
});

Deno.test("a peer that was reachable for as long as nothing was asked of it is dialled when its stream breaks", async () => {
  const server = await serverWith([HELLO]);
  const opened: BitswapStream[] = [];
  const isRead = [0, 1, 2].map(() => Promise.withResolvers<void>());
  const inner = memoryPeer("idle", async (stream) => {
    opened.push(stream);
    if (opened.length === 3) return void server.handleStream(stream);
    if (opened.length === 2) return;
    await readProtocol(stream);
    for (const piece of encodeFramed({ blockPresences: [{ cid: HELLO_CID.bytes, type: "have" }] })) {
      await stream.write(piece);
    }
    await stream.closeWrite();
  });
  const idle: BitswapPeer = {
    id: "idle",
    async openStream(signal) {
      const stream = await inner.openStream(signal);
      const at = opened.length - 1;
      return {
        ...stream,
        read() {
          isRead[at]!.resolve();
          return stream.read();
        },
      };
    },
  };
  const busy = Promise.withResolvers<BitswapStream>();
  const dropped = Promise.withResolvers<string>();
  let isBusyUp = true;
  const first = memoryPeer("busy", (stream) => isBusyUp ? busy.resolve(stream) : stream.reset("REFUSED"));
  let now = 0;
  await using client = new BitswapClient({
    peers: [first, idle],
    streamsPerPeer: 1,
    reconnectDelayMs: 1,
    stallTimeoutMs: 1e9,
    stealAfterMs: 1e9,
    now: () => now,
    onPeerDropped: ({ reason }) => dropped.resolve(reason),
  });
  const got = client.get(HELLO_CID);
  got.catch(() => {}); // awaited below, unless something else fails first
  const owing = await busy.promise;
  await readProtocol(owing);
  // It has said that it has the block, which another one is sending: there is nothing to ask of it.
  await isRead[1]!.promise;
  now += 60_000;
  opened[1]!.reset("CANCELLED");
  assertEquals(await Promise.race([isRead[2]!.promise.then(() => "dialled"), dropped.promise]), "dialled");
  isBusyUp = false;
  owing.reset("CANCELLED");
  assertEquals(await got, HELLO);
});

Deno.test("a peer that was given up is asked again by the next get", async () => {
  const server = await serverWith([HELLO]);
  let isOff = true;
  const peer = memoryPeer("a", (stream) => {
    if (isOff) stream.reset("REFUSED");
    else void server.handleStream(stream);
  });
  await using client = new BitswapClient({ peers: [peer], reconnectDelayMs: 1 });
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CONNECT_FAILED");
  isOff = false;
  assertEquals(await client.get(HELLO_CID), HELLO);
});

Deno.test("a peer that gives no more than so many bytes is given up for the rest", async () => {
  const server = new BitswapServer({ maxServedBytes: 1500 });
  const cids: CID[] = [];
  for (const block of testBlocks(3, 1000)) cids.push(await server.put(block));
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: [peerOf("a", server), peerOf("b", new BitswapServer())],
    reconnectDelayMs: 1,
    onPeerDropped: (event) => dropped.push(event),
  });
  const got: number[] = [];
  for (const cid of cids) got.push(await client.get(cid).then((block) => block.length, () => 0));
  assertEquals(got, [1000, 0, 0]);
  assertEquals(dropped.map(({ peer, error }) => [peer, error instanceof HtxError && error.code]), [
    ["a", "EXCESSIVE_LOAD"],
    ["a", "EXCESSIVE_LOAD"],
  ]);
  await using alone = new BitswapClient({ peers: [peerOf("a", server)], reconnectDelayMs: 1 });
  assertEquals((await assertRejects(() => alone.get(cids[2]!), HtxError)).code, "CONNECT_FAILED");
});

Deno.test("clients of one key over the server's limit of wants get all there is", async () => {
  const server = new BitswapServer({ maxWantsPerPeer: 4 });
  const cids: CID[] = [];
  for (const block of testBlocks(400, 300)) cids.push(await server.put(block));
  const counts = await Promise.all(Array.from({ length: 4 }, async () => {
    await using client = new BitswapClient({ peers: [peerOf("a", server)] });
    return (await Array.fromAsync(client.getMany(cids))).length;
  }));
  assertEquals(counts, [400, 400, 400, 400]);
  assertEquals(server.ledger("client")!.dontHaves, 0);
});

Deno.test("a server of few wants gives all it has to a client that asks several peers ahead", async () => {
  const blocks = testBlocks(100, 300);
  const servers = [new BitswapServer({ maxWantsPerPeer: 3 }), new BitswapServer({ maxWantsPerPeer: 1 })];
  const wanted = Promise.withResolvers<void>();
  for (const [i, block] of blocks.entries()) await servers[i % 2]!.put(block);
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: servers.map((server, i) => ({
      id: `${i}`,
      async openStream(signal) {
        // Much is wanted by then, and asked in one message.
        await wanted.promise;
        return await peerOf(`${i}`, server).openStream(signal);
      },
    })),
    onPeerDropped: (event) => dropped.push(event),
  });
  function* cids(): Generator<CID> {
    for (const [i, block] of blocks.entries()) {
      if (i === 60) wanted.resolve();
      yield cidOf(block);
    }
  }
  const got = await Array.fromAsync(client.getMany(cids()));
  assertEquals([got.length, dropped], [100, []]);
});

Deno.test("an onProgress that throws fails its own get, and no other of the block", async () => {
  const server = await serverWith([HELLO]);
  for (const blockstore of [undefined, new MemoryBlockstore()]) {
    await using client = new BitswapClient({
      peers: [peerOf("a", server)],
      ...(blockstore === undefined ? {} : { blockstore }),
    });
    const onProgress = (): never => {
      throw new Error("mine");
    };
    const failing = assertRejects(() => client.get(HELLO_CID, { onProgress }), Error, "mine");
    const failingMany = assertRejects(
      () => client.getMany([HELLO_CID], { onProgress }).next(),
      Error,
      "mine",
    );
    assertEquals(await client.get(HELLO_CID), HELLO);
    await failing;
    await failingMany;
    // From the store as well, where there is one.
    await assertRejects(() => client.get(HELLO_CID, { onProgress }), Error, "mine");
  }
});

Deno.test("an onPeerDropped that throws changes nothing", async () => {
  const fate = await fateOf((stream) => stream.reset("REFUSED"), {
    onPeerDropped() {
      throw new Error("mine");
    },
  });
  assertEquals(fate.code, "CONNECT_FAILED");
});

Deno.test("what is looked up in the store when getMany() is left is not asked of anyone", async () => {
  const server = await serverWith([HELLO]);
  const other = await server.put(utf8("other"));
  const looking = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const inner = new MemoryBlockstore();
  await inner.put(HELLO_CID, HELLO);
  await using client = new BitswapClient({
    peers: [peerOf("a", server)],
    blockstore: storeWith(inner, async function* (cid) {
      if (!inner.has(cid)) {
        looking.resolve();
        await gate.promise;
      }
      yield* inner.get(cid);
    }),
  });
  for (const leave of ["break", "abort"]) {
    const controller = new AbortController();
    const blocks = client.getMany([HELLO_CID, other], { signal: controller.signal });
    assertEquals((await blocks.next()).done, false);
    await looking.promise;
    if (leave === "break") await blocks.return();
    else controller.abort(new Error("enough"));
  }
  gate.resolve();
  // A get of our own goes the same way, and comes after.
  assertEquals(await client.get(cidOf(utf8("absent"))).catch(() => "absent"), "absent");
  assertEquals(server.ledger("client")!.blocksSent, 0);
  assert(!inner.has(other));
});

Deno.test("a priority that is no integer of 32 bits is refused before anything is asked", async () => {
  const server = await serverWith([HELLO]);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  for (const priority of [1.5, NaN, Infinity, 2 ** 31, -(2 ** 31) - 1]) {
    await assertRejects(() => client.get(HELLO_CID, { priority }), RangeError, "priority");
    await assertRejects(() => client.getMany([HELLO_CID], { priority }).next(), RangeError, "priority");
  }
  for (const priority of [2 ** 31 - 1, 0, -(2 ** 31)]) {
    assertEquals(await client.get(HELLO_CID, { priority }), HELLO);
  }
});

Deno.test("a peer whose dialler never settles is given up after the timeout, and does not keep close() waiting", async () => {
  const late = Promise.withResolvers<BitswapStream>();
  const dialled = Promise.withResolvers<void>();
  let dials = 0;
  const dropped: string[] = [];
  const client = new BitswapClient({
    peers: [{
      id: "a",
      openStream() {
        if (++dials === 3) dialled.resolve();
        return late.promise;
      },
    }],
    reconnectTimeoutMs: 20,
    onPeerDropped: ({ peer, reason }) => dropped.push(`${peer} ${reason}`),
  });
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CONNECT_FAILED");
  assertEquals(dropped, ["a unreachable"]);
  const second = assertRejects(() => client.get(HELLO_CID), HtxError, "closed");
  await dialled.promise;
  await client.close();
  await second;
  // A stream that comes after all is let go.
  const codes: (string | undefined)[] = [];
  late.resolve({
    read: () => Promise.resolve(null),
    write: () => Promise.resolve(),
    closeWrite: () => Promise.resolve(),
    reset: (code) => codes.push(code),
  });
  await late.promise;
  await undefined;
  assertEquals(codes, ["CANCELLED", "CANCELLED", "CANCELLED", "CANCELLED"]);
});

Deno.test("a dialler that never settles is asked again once its caller has left", async () => {
  const server = await serverWith([HELLO]);
  let dials = 0;
  const peer = connectionPeer("a", () => {
    if (++dials === 1) return new Promise(() => {});
    return Promise.resolve({
      createBidirectionalStream: () => peerOf("a", server).openStream(new AbortController().signal),
      closed: new Promise(() => {}),
    });
  });
  await using client = new BitswapClient({ peers: [peer], reconnectTimeoutMs: 20 });
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CONNECT_FAILED");
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(dials, 2);
});

Deno.test("a connection that comes when its caller has left is there for the next", async () => {
  const server = await serverWith([HELLO]);
  const late = Promise.withResolvers<BitswapConnection>();
  let dials = 0;
  const peer = connectionPeer("a", () => {
    dials++;
    return late.promise;
  });
  await using client = new BitswapClient({ peers: [peer], reconnectTimeoutMs: 20 });
  assertEquals((await assertRejects(() => client.get(HELLO_CID), HtxError)).code, "CONNECT_FAILED");
  const before = dials;
  late.resolve({
    createBidirectionalStream: () => peerOf("a", server).openStream(new AbortController().signal),
    closed: new Promise(() => {}),
  });
  await late.promise;
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(dials, before);
});

Deno.test("a store of our own that is slow makes no peer a stalling one", async () => {
  const blocks = testBlocks(300, 1000);
  const server = await serverWith(blocks);
  const inner = new MemoryBlockstore();
  // As many as are stored at once, until five stall timeouts have passed; much is still wanted then.
  const putting: { readonly until: number; readonly end: () => void }[] = [];
  let puts = 0;
  const slow: Blockstore = {
    ...storeWith(inner, (cid) => inner.get(cid)),
    async put(cid, block) {
      if (++puts <= 16) {
        await new Promise<void>((end) => putting.push({ until: performance.now() + 200, end }));
      }
      return await inner.put(cid, block);
    },
  };
  const now = (): number => {
    const time = performance.now();
    while (putting.length > 0 && putting[0]!.until <= time) putting.shift()!.end();
    return time;
  };
  const dropped: PeerDropped[] = [];
  await using client = new BitswapClient({
    peers: [peerOf("a", server)],
    blockstore: slow,
    stallTimeoutMs: 40,
    onPeerDropped: (event) => dropped.push(event),
    now,
  });
  const got = await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  assertEquals([got.length, dropped, client.peers[0]!.duplicates], [300, [], 0]);
});

Deno.test("a block that is on its way into the store is not fetched again, and who has left hears nothing", async () => {
  const server = await serverWith([HELLO]);
  const inner = new MemoryBlockstore();
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  await using client = new BitswapClient({
    peers: [peerOf("a", server)],
    blockstore: {
      ...storeWith(inner, (cid) => inner.get(cid)),
      async put(cid, block) {
        begun.resolve();
        await gate.promise;
        return await inner.put(cid, block);
      },
    },
  });
  const reports: string[] = [];
  const controller = new AbortController();
  const left = client.get(HELLO_CID, { signal: controller.signal, onProgress: () => reports.push("left") });
  await begun.promise;
  controller.abort(new Error("enough"));
  await assertRejects(() => left, Error, "enough");
  const second = client.get(HELLO_CID, { onProgress: () => reports.push("stayed") });
  // Its look into the store comes first.
  for (let i = 0; i < 20; i++) await undefined;
  gate.resolve();
  assertEquals(await second, HELLO);
  assertEquals(reports, ["stayed"]);
  assertEquals(server.ledger("client")!.blocksSent, 1);
});

Deno.test("a get that is given up does not wait for a store that never answers", async () => {
  const inner = new MemoryBlockstore();
  await using client = new BitswapClient({
    // deno-lint-ignore require-yield
    blockstore: storeWith(inner, async function* () {
      await new Promise(() => {});
    }),
  });
  const controller = new AbortController();
  const left = client.get(HELLO_CID, { signal: controller.signal });
  controller.abort(new Error("enough"));
  await assertRejects(() => left, Error, "enough");
});

Deno.test("each get gives an array of its own", async () => {
  const server = await serverWith([HELLO]);
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  const [a, b] = await Promise.all([client.get(HELLO_CID), client.get(HELLO_CID)]);
  a.fill(0);
  assertEquals(b, HELLO);
  assertEquals(b.buffer.byteLength, HELLO.length);
});

Deno.test("timeouts without an end look after the peers no more than four times a second", async () => {
  let looks = 0;
  await using client = new BitswapClient({
    peers: [{ id: "a", openStream: () => new Promise(() => {}) }],
    stallTimeoutMs: Infinity,
    stealAfterMs: Infinity,
    reconnectTimeoutMs: Infinity,
    now() {
      looks++;
      return performance.now();
    },
  });
  const signal = AbortSignal.timeout(50);
  await assertRejects(() => client.get(HELLO_CID, { signal }), DOMException);
  assert(looks < 30, `${looks}`);
});

Deno.test("getMany() asks for all that is wanted at once in few messages", async () => {
  const blocks = testBlocks(400, 100);
  const server = await serverWith(blocks);
  for (const blockstore of [undefined, new MemoryBlockstore()]) {
    const before = server.ledger("client")?.messages ?? 0;
    await using client = new BitswapClient({
      peers: [peerOf("a", server)],
      ...(blockstore === undefined ? {} : { blockstore }),
    });
    assertEquals((await Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))))).length, 400);
    const messages = server.ledger("client")!.messages - before;
    assert(messages < 100, `${messages}`);
  }
});

Deno.test("getMany() looks for several blocks at once in a store that takes its time, and for no more", async () => {
  const blocks = testBlocks(40, 100);
  const inner = new MemoryBlockstore();
  for (const block of blocks) await inner.put(cidOf(block), block);
  const gate = Promise.withResolvers<void>();
  const full = Promise.withResolvers<void>();
  let looking = 0;
  await using client = new BitswapClient({
    blockstore: storeWith(inner, async function* (cid) {
      if (++looking === 16) full.resolve();
      await gate.promise;
      yield* inner.get(cid);
    }),
  });
  const all = Array.fromAsync(client.getMany(blocks.map((block) => cidOf(block))));
  await full.promise;
  for (let i = 0; i < 20; i++) await undefined;
  assertEquals(looking, 16);
  gate.resolve();
  assertEquals((await all).length, 40);
});

Deno.test("getMany() that was left asks for no CID that its source gives after that", async () => {
  const server = await serverWith([HELLO]);
  const other = await server.put(utf8("other"));
  const late = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  async function* cids(): AsyncGenerator<CID> {
    yield HELLO_CID;
    asked.resolve();
    await late.promise;
    yield other;
  }
  await using client = new BitswapClient({ peers: [peerOf("a", server)] });
  const source = cids();
  for await (const block of client.getMany(source)) {
    assertEquals(block.bytes, HELLO);
    await asked.promise;
    break;
  }
  late.resolve();
  // It has ended when this has.
  await source.return(undefined);
  assertEquals(await client.get(HELLO_CID), HELLO);
  assertEquals(server.ledger("client")!.blocksSent, 2);
});

Deno.test("a client refuses a number of streams that is none, or more than a connection takes", () => {
  for (const streamsPerPeer of [0, -1, NaN, 1.5, 257, Infinity]) {
    assertThrows(() => new BitswapClient({ streamsPerPeer }), RangeError, "streamsPerPeer");
  }
  new BitswapClient({ streamsPerPeer: 256 });
});

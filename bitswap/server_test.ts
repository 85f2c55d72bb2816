import { assert, assertEquals } from "@std/assert";
import { concat, fromHex, type HtxError, utf8 } from "./_core.ts";
import { MemoryBlockstore, VerifiedBlockstore } from "./blockstore.ts";
import { type CID, cidOf, joinBlock, parseCid } from "./cid.ts";
import {
  type BitswapMessage,
  type BitswapMessageInit,
  decodeMessage,
  encodeFramed,
  MAX_BLOCK_LENGTH,
  MessageDeframer,
} from "./message.ts";
import { BITSWAP_PROTOCOL, type BitswapStream, protocolHeader, readProtocol } from "./peer.ts";
import { BitswapServer, type BitswapServerOptions } from "./server.ts";
import { storeWith, streamPair, testBlocks } from "./_testing.ts";

/** The client's end of a stream, spoken by hand. */
class Hand {
  readonly #deframer = new MessageDeframer();
  readonly #messages: BitswapMessage[] = [];
  readonly handled: Promise<void>;
  constructor(readonly stream: BitswapStream, handled: Promise<void>) {
    this.handled = handled;
  }
  async say(message: BitswapMessageInit): Promise<void> {
    await this.stream.write(concat(...encodeFramed(message)));
  }
  async hear(): Promise<BitswapMessage | null> {
    for (;;) {
      const message = this.#messages.shift();
      if (message) return message;
      const chunk = await this.stream.read();
      if (chunk === null) return null;
      for (const pieces of this.#deframer.push(chunk)) this.#messages.push(decodeMessage(joinBlock(pieces)));
    }
  }
  /** Ends our side, and gives all that still comes. */
  async rest(): Promise<BitswapMessage[]> {
    await this.stream.closeWrite();
    const all = [];
    for (let message; (message = await this.hear());) all.push(message);
    await this.handled;
    return all;
  }
}

async function dial(server: BitswapServer, peer = "peer", header = protocolHeader()): Promise<Hand> {
  const [mine, theirs] = streamPair();
  const handled = server.handleStream(theirs, { peer });
  await mine.write(header);
  return new Hand(mine, handled);
}

async function failure(hand: Hand): Promise<string> {
  try {
    while (await hand.hear()) { /* until it breaks */ }
    return "none";
  } catch (error) {
    await hand.handled;
    return (error as HtxError).code;
  }
}

function summary(messages: BitswapMessage[]): { blocks: string[]; have: string[]; dontHave: string[] } {
  const blocks = messages.flatMap(({ payload }) => payload).map(({ prefix, data }) => {
    const cid = cidOf(data);
    assertEquals(concat(prefix, cid.multihash.digest), cid.bytes);
    return cid.toString();
  });
  const presences = messages.flatMap(({ blockPresences }) => blockPresences);
  const of = (type: string): string[] =>
    presences.filter((presence) => presence.type === type).map(({ cid }) => parseCid(cid).toString());
  return { blocks, have: of("have"), dontHave: of("dont-have") };
}

const HELLO = utf8("hello");
const HELLO_CID = cidOf(HELLO);
const ABSENT = cidOf(utf8("absent"));

Deno.test("a server answers want-have, want-block and dont-have", async () => {
  const server = new BitswapServer();
  await server.put(HELLO);
  const hand = await dial(server);
  await hand.say({
    wantlist: {
      entries: [
        { cid: HELLO_CID.bytes, wantType: "have" },
        { cid: ABSENT.bytes, wantType: "have", sendDontHave: true },
      ],
    },
  });
  assertEquals(summary([(await hand.hear())!]), {
    blocks: [],
    have: [HELLO_CID.toString()],
    dontHave: [ABSENT.toString()],
  });
  await hand.say({
    wantlist: { entries: [{ cid: HELLO_CID.bytes }, { cid: ABSENT.bytes, sendDontHave: true }] },
  });
  assertEquals(summary(await hand.rest()), {
    blocks: [HELLO_CID.toString()],
    have: [],
    dontHave: [ABSENT.toString()],
  });
  assertEquals(server.ledger("peer"), {
    peer: "peer",
    blocksSent: 1,
    bytesSent: 5,
    haves: 1,
    dontHaves: 2,
    messages: 2,
    refused: 0,
    wants: 0,
    streams: 0,
  });
});

Deno.test("an empty block is sent as a block, and is not an absent one (e-35)", async () => {
  const server = new BitswapServer();
  const empty = cidOf(new Uint8Array());
  const hand = await dial(server);
  await hand.say({ wantlist: { entries: [{ cid: empty.bytes, sendDontHave: true }] } });
  assertEquals(summary([(await hand.hear())!]).dontHave, [empty.toString()]);
  await server.put(new Uint8Array());
  await hand.say({ wantlist: { entries: [{ cid: empty.bytes, sendDontHave: true }] } });
  assertEquals(summary(await hand.rest()).blocks, [empty.toString()]);
});

Deno.test("a stream of another protocol is reset with REFUSED", async () => {
  const server = new BitswapServer();
  for (const id of ["/ipfs/bitswap/1.2.0", BITSWAP_PROTOCOL + "x", BITSWAP_PROTOCOL.slice(0, -1), ""]) {
    const hand = await dial(server, "peer", concat(new Uint8Array([id.length]), utf8(id)));
    assertEquals(await failure(hand), "REFUSED", id);
  }
  const ids = [new Uint8Array([0xff]), concat(new Uint8Array([0xef, 0xbb, 0xbf]), utf8(BITSWAP_PROTOCOL))];
  for (const id of ids) {
    const hand = await dial(server, "peer", concat(new Uint8Array([id.length]), id));
    assertEquals(await failure(hand), "REFUSED", `${id}`);
  }
});

Deno.test("a store that says it has a block and does not give it is asked again no more than once", async () => {
  const inner = new MemoryBlockstore();
  let reads = 0;
  const store = {
    ...storeWith(inner, (cid) => {
      reads++;
      return inner.get(cid);
    }),
    has: () => true,
  };
  const server = new BitswapServer({ blockstore: store });
  const hand = await dial(server);
  const cid = cidOf(utf8("late"));
  await hand.say({ wantlist: { entries: [{ cid: cid.bytes }] } });
  await hand.say({ wantlist: { entries: [{ cid: cidOf(utf8("other")).bytes, sendDontHave: true }] } });
  assertEquals(summary([(await hand.hear())!]).dontHave, [cidOf(utf8("other")).toString()]);
  assertEquals(reads, 3);
  await server.put(utf8("late"));
  assertEquals(summary([(await hand.hear())!]).blocks, [cid.toString()]);
  await hand.rest();
});

Deno.test("a block longer than the exchange takes is absent, however long those of the store may be", async () => {
  const long = new Uint8Array(MAX_BLOCK_LENGTH + 1);
  const memory = () =>
    new VerifiedBlockstore(new MemoryBlockstore(), { maxBlockLength: 2 * MAX_BLOCK_LENGTH });
  const inner = memory();
  for (
    const blockstore of [memory(), new VerifiedBlockstore(inner, { maxBlockLength: 2 * MAX_BLOCK_LENGTH })]
  ) {
    const server = new BitswapServer({ blockstore });
    const cid = await server.put(long);
    const hand = await dial(server);
    await hand.say({ wantlist: { entries: [{ cid: cid.bytes, sendDontHave: true }] } });
    const { blocks, dontHave } = summary(await hand.rest());
    assertEquals([blocks, dontHave], [[], [cid.toString()]]);
  }
});

Deno.test("who reads none of his streams makes the server hold little more than a block for each", async () => {
  const inner = new MemoryBlockstore();
  const blocks = testBlocks(5, MAX_BLOCK_LENGTH);
  for (const block of blocks) inner.put(cidOf(block), block);
  let reads = 0;
  const store = storeWith(inner, async function* (cid) {
    reads++;
    yield* await Promise.resolve(inner.get(cid));
  });
  const server = new BitswapServer({ blockstore: store });
  const request = concat(
    protocolHeader(),
    ...encodeFramed({ wantlist: { entries: blocks.map((block) => ({ cid: cidOf(block).bytes })) } }),
  );
  const end = Promise.withResolvers<null>();
  const stuck = Promise.withResolvers<void>();
  const streams: Promise<void>[] = [];
  let stuckCount = 0;
  const allStuck = Promise.withResolvers<void>();
  const count = 40;
  for (let i = 0; i < count; i++) {
    const chunks = [request];
    let isStuck = false;
    streams.push(server.handleStream({
      read: () => Promise.resolve(chunks.shift() ?? end.promise),
      write: () => {
        if (!isStuck && ++stuckCount === count) allStuck.resolve();
        isStuck = true;
        return stuck.promise;
      },
      closeWrite: () => Promise.resolve(),
      reset: () => {},
    }, { peer: "peer" }));
  }
  await allStuck.promise;
  // One each, and what fits into 32 MiB.
  assert(reads <= count + 16, `${reads}`);
  stuck.resolve();
  end.resolve(null);
  await Promise.all(streams);
  assertEquals(reads, count * blocks.length);
});

Deno.test("the protocol id and the first message may come in any pieces", async () => {
  const server = new BitswapServer();
  await server.put(HELLO);
  const bytes = concat(
    protocolHeader(),
    ...encodeFramed({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } }),
  );
  assertEquals(bytes[0], 22);
  for (const step of [1, 7, bytes.length]) {
    const [mine, theirs] = streamPair();
    const handled = server.handleStream(theirs);
    for (let at = 0; at < bytes.length; at += step) await mine.write(bytes.subarray(at, at + step));
    assertEquals(summary(await new Hand(mine, handled).rest()).blocks, [HELLO_CID.toString()]);
  }
  const [mine, theirs] = streamPair();
  await mine.write(protocolHeader().subarray(0, 9));
  await mine.closeWrite();
  assertEquals(await readProtocol(theirs), undefined);
});

Deno.test("malformed, oversized and truncated messages end the stream", async () => {
  const server = new BitswapServer();
  for (
    const [hex, code] of [
      ["020a05", "PROTOCOL_ERROR"],
      ["81808002", "EXCESSIVE_LOAD"],
      ["ffffffff7f", "EXCESSIVE_LOAD"],
    ]
  ) {
    const hand = await dial(server);
    await hand.stream.write(fromHex(hex!));
    assertEquals(await failure(hand), code);
  }
  const hand = await dial(server);
  await hand.stream.write(fromHex("05"));
  await hand.stream.closeWrite();
  assertEquals(await failure(hand), "PROTOCOL_ERROR");
});

Deno.test("unfinished messages of one peer hold no more than four of the longest, however many streams it opens", async () => {
  const server = new BitswapServer({ maxMessageLength: 1000 });
  const hands: Hand[] = [];
  for (let i = 0; i < 5; i++) {
    const hand = await dial(server, "hoarder");
    await hand.stream.write(fromHex("e807"));
    await hand.stream.write(new Uint8Array(900));
    hands.push(hand);
  }
  assertEquals(await failure(hands[4]!), "EXCESSIVE_LOAD");
  const other = await dial(server, "other");
  await other.stream.write(fromHex("e807"));
  await other.stream.write(new Uint8Array(900));
  for (const hand of [...hands.slice(0, 4), other]) {
    hand.stream.reset("CANCELLED");
    await hand.handled;
  }
  const again = await dial(server, "hoarder");
  await again.stream.write(fromHex("e807"));
  await again.stream.write(new Uint8Array(1000));
  // Zeros are no message.
  assertEquals(await failure(again), "PROTOCOL_ERROR");
});

Deno.test("a want keeps its CID and nothing else of the message that it came in", async () => {
  const kept: number[] = [];
  const inner = new MemoryBlockstore();
  const store = {
    ...storeWith(inner, (cid) => {
      kept.push(cid.bytes.buffer.byteLength, cid.multihash.digest.buffer.byteLength);
      return inner.get(cid);
    }),
    has: (cid: CID) => {
      kept.push(cid.bytes.buffer.byteLength, cid.multihash.digest.buffer.byteLength);
      return inner.has(cid);
    },
  };
  const hand = await dial(new BitswapServer({ blockstore: store }));
  const { bytes } = ABSENT;
  const asked = [{ cid: bytes }, { cid: bytes, wantType: "have", sendDontHave: true }] as const;
  await hand.say({ wantlist: { entries: [...asked, { cid: new Uint8Array(100_000), cancel: true }] } });
  assertEquals(summary([(await hand.hear())!]).dontHave, [ABSENT.toString()]);
  assertEquals(summary(await hand.rest()), { blocks: [], have: [], dontHave: [] });
  assert(kept.length >= 4);
  assertEquals(Math.max(...kept), bytes.length);
});

Deno.test("blocks go out by priority, then in the order asked", async () => {
  const store = new VerifiedBlockstore();
  const cids: CID[] = [];
  for (const block of testBlocks(6, 70_000)) cids.push(await store.add(block));
  const hand = await dial(new BitswapServer({ blockstore: store }));
  const priorities = [1, 5, -3, 5, 1, 2 ** 31 - 1];
  await hand.say({
    wantlist: { entries: cids.map((cid, i) => ({ cid: cid.bytes, priority: priorities[i]! })) },
  });
  const order = summary(await hand.rest()).blocks.map((text) =>
    cids.findIndex((cid) => cid.toString() === text)
  );
  assertEquals(order, [5, 1, 3, 0, 4, 2]);
});

Deno.test("a cancelled want, and one that a full want-list leaves out, is not sent", async () => {
  // A store that answers when told to.
  const gate = Promise.withResolvers<void>();
  const inner = new MemoryBlockstore();
  const slow = storeWith(inner, async function* (cid) {
    await gate.promise;
    yield* inner.get(cid);
  });
  const server = new BitswapServer({ blockstore: slow });
  const cids = [];
  for (const block of testBlocks(20, 1000)) cids.push(await server.put(block));
  const hand = await dial(server);
  await hand.say({ wantlist: { entries: cids.slice(0, 15).map((cid) => ({ cid: cid.bytes })) } });
  await hand.say({ wantlist: { entries: [{ cid: cids[1]!.bytes, cancel: true }] } });
  await hand.say({
    wantlist: { entries: [cids[15]!, cids[16]!].map((cid) => ({ cid: cid.bytes })), full: true },
  });
  const rest = hand.rest();
  await new Promise((resolve) => setTimeout(resolve, 0));
  gate.resolve();
  assertEquals(summary(await rest).blocks, [cids[15]!, cids[16]!].map(String));
  assertEquals(server.ledger("peer")!.wants, 0);
});

Deno.test("a want without send-dont-have waits, and is sent when the block comes into the store", async () => {
  const server = new BitswapServer();
  const hand = await dial(server);
  const other = await dial(server, "other");
  for (const each of [hand, other]) await each.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } });
  assertEquals(server.ledger("other")!.blocksSent, 0);
  await server.put(HELLO);
  assertEquals(summary([(await hand.hear())!]).blocks, [HELLO_CID.toString()]);
  assertEquals(summary([(await other.hear())!]).blocks, [HELLO_CID.toString()]);
  // One that still waits when the reader has ended is let go.
  await hand.say({ wantlist: { entries: [{ cid: ABSENT.bytes }] } });
  assertEquals(summary(await hand.rest()), { blocks: [], have: [], dontHave: [] });
  await other.rest();
  assertEquals(server.ledger("peer")!.wants, 0);
});

Deno.test("e-36 a want touches nothing but the store's has and get: serving never dials", async () => {
  const calls: string[] = [];
  const memory = new MemoryBlockstore();
  const watched = new Proxy(memory, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        calls.push(String(name));
        return Reflect.apply(value, target, args);
      };
    },
  });
  const fetched: unknown[] = [];
  const { fetch: realFetch } = globalThis;
  const { connect } = Deno;
  globalThis.fetch = (...args) => (fetched.push(args), realFetch(...args));
  Deno.connect =
    ((...args: Parameters<typeof connect>) => (fetched.push(args), connect(...args))) as typeof connect;
  try {
    const server = new BitswapServer({ blockstore: watched });
    const hand = await dial(server);
    await hand.say({
      wantlist: {
        entries: [
          { cid: ABSENT.bytes },
          { cid: ABSENT.bytes, wantType: "have", sendDontHave: true },
          { cid: HELLO_CID.bytes, sendDontHave: true },
        ],
      },
      // An unasked block is not taken in either.
      payload: [{ prefix: fromHex("01551220"), data: HELLO }],
    });
    assertEquals(summary(await hand.rest()).dontHave.sort(), [ABSENT, HELLO_CID].map(String).sort());
    assertEquals([...new Set(calls)].sort(), ["get", "has"]);
    assertEquals(memory.size, 0);
    assertEquals(fetched, []);
  } finally {
    globalThis.fetch = realFetch;
    Deno.connect = connect;
  }
});

Deno.test("e-35 a block that went bad in the store is not served, whatever it has become", async () => {
  const inner = new MemoryBlockstore();
  const reports: string[] = [];
  const blockstore = new VerifiedBlockstore(inner, { onCorrupt: ({ cid }) => reports.push(cid.toString()) });
  const server = new BitswapServer({ blockstore });
  for (
    const bad of [utf8("wrong"), HELLO.subarray(1), new Uint8Array(), new Uint8Array(MAX_BLOCK_LENGTH + 1)]
  ) {
    await server.put(HELLO);
    void inner.put(HELLO_CID, bad);
    const hand = await dial(server);
    await hand.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes, sendDontHave: true }] } });
    assertEquals(summary(await hand.rest()), { blocks: [], have: [], dontHave: [HELLO_CID.toString()] });
  }
  assertEquals(reports.length, 4);
});

Deno.test("e-35 arrays that the store was given, or gave out, do not change what is served", async () => {
  const server = new BitswapServer();
  const served = async (): Promise<number> => {
    const hand = await dial(server);
    await hand.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes, sendDontHave: true }] } });
    return summary(await hand.rest()).blocks.length;
  };
  const given = HELLO.slice();
  await server.put(given);
  given[0] = 0;
  assertEquals(await served(), 1);
  const holders = [
    async (): Promise<Uint8Array> => await server.blockstore.getBytes(HELLO_CID),
    async (): Promise<Uint8Array> => (await server.blockstore.read(HELLO_CID))![0]!,
    async (): Promise<Uint8Array> => (await Array.fromAsync(server.blockstore.get(HELLO_CID)))[0]!,
    async (): Promise<Uint8Array> => {
      for await (const { bytes } of server.blockstore.getAll()) for await (const piece of bytes) return piece;
      return new Uint8Array();
    },
  ];
  for (const hold of holders) {
    await server.put(HELLO);
    const held = await hold();
    assertEquals(await served(), 1);
    held[0] = 0;
    assertEquals(await served(), 0);
  }
});

Deno.test("no more than the limit of wants is taken from a peer, over all its streams", async () => {
  const server = new BitswapServer({ maxWantsPerPeer: 10 });
  const cids = testBlocks(12, 50).map((block) => cidOf(block));
  const one = await dial(server, "same");
  const two = await dial(server, "same");
  await one.say({ wantlist: { entries: cids.slice(0, 6).map((cid) => ({ cid: cid.bytes })) } });
  await one.say({ wantlist: { entries: [{ cid: ABSENT.bytes, wantType: "have", sendDontHave: true }] } });
  await one.hear();
  assertEquals(server.ledger("same")!.wants, 6);
  // Six wait for their block, and the four that still fit; for those beyond, the ones that waited longest give way.
  await two.say({ wantlist: { entries: cids.slice(6).map((cid) => ({ cid: cid.bytes })) } });
  await two.say({ wantlist: { entries: [{ cid: cids[0]!.bytes, wantType: "have", sendDontHave: true }] } });
  assertEquals(summary([(await two.hear())!]).dontHave, [cids[0]!.toString()]);
  assertEquals([server.ledger("same")!.wants, server.ledger("same")!.refused], [9, 3]);
  // Another peer is not touched by it.
  const other = await dial(server, "other");
  await server.put(HELLO);
  await other.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } });
  assertEquals(summary(await other.rest()).blocks.length, 1);
  await one.rest();
  await two.rest();
  assertEquals(server.ledger("same")!.wants, 0);

  const many = (length: number): BitswapMessageInit => ({
    wantlist: { entries: Array.from({ length }, () => ({ cid: HELLO_CID.bytes })) },
  });
  const most = await dial(server);
  await most.say(many(4096));
  assert(summary(await most.rest()).blocks.length > 0);
  const flood = await dial(server);
  await flood.say(many(4097));
  assertEquals(await failure(flood), "EXCESSIVE_LOAD");
});

Deno.test("a peer gets no more bytes than its limit in a window, and again in the next", async () => {
  let now = 0;
  const server = new BitswapServer({ maxServedBytes: 2500, servedBytesWindowMs: 1000, now: () => now });
  const cids = [];
  for (const block of testBlocks(4, 1000)) cids.push(await server.put(block));
  const wants: BitswapMessageInit = {
    wantlist: { entries: cids.map((cid) => ({ cid: cid.bytes, sendDontHave: true })) },
  };
  const served = async (peer: string): Promise<[number, number] | string> => {
    const hand = await dial(server, peer);
    await hand.say(wants);
    const messages = [];
    try {
      for (let message; (message = await hand.hear());) messages.push(message);
    } catch (error) {
      await hand.handled;
      return (error as HtxError).code;
    }
    const { blocks, dontHave } = summary(messages);
    // What it asks now is heard by nobody, and answered by none.
    await hand.say(wants);
    assertEquals(await hand.rest(), []);
    return [blocks.length, dontHave.length];
  };
  // Nothing that is here is called missing: the stream with the last blocks ends, the next one is reset.
  assertEquals(await served("a"), [2, 0]);
  assertEquals(await served("a"), "EXCESSIVE_LOAD");
  assertEquals(await served("b"), [2, 0]);
  now = 999;
  assertEquals(await served("a"), "EXCESSIVE_LOAD");
  now = 1000;
  assertEquals(await served("a"), [2, 0]);
  assertEquals(server.ledger("a")!.bytesSent, 4000);
  assertEquals(server.ledger("a")!.wants, 0);
});

Deno.test("a block that the store cannot read is absent and reported, and holds up no other", async () => {
  const inner = new MemoryBlockstore();
  const broken = new Set([HELLO_CID.toString()]);
  const errors: unknown[] = [];
  const server = new BitswapServer({
    blockstore: storeWith(inner, async function* (cid) {
      if (broken.has(cid.toString())) throw await Promise.resolve(new Error("EIO"));
      yield* inner.get(cid);
    }),
    onError(error) {
      errors.push((error as Error).message);
      throw new Error("the hook's own");
    },
  });
  await server.put(HELLO);
  const good = await server.put(utf8("good"));
  const hand = await dial(server);
  const entries = [HELLO_CID, good].map((cid) => ({ cid: cid.bytes, sendDontHave: true }));
  await hand.say({ wantlist: { entries } });
  assertEquals(summary(await hand.rest()), {
    blocks: [good.toString()],
    have: [],
    dontHave: [HELLO_CID.toString()],
  });
  assertEquals(errors, ["EIO"]);
});

Deno.test("a want for a block that cannot be read waits, without reading it over and over, until it is put anew", async () => {
  const inner = new MemoryBlockstore();
  let isBroken = true;
  const failed = Promise.withResolvers<void>();
  let reads = 0;
  const server = new BitswapServer({
    blockstore: storeWith(inner, async function* (cid) {
      reads++;
      if (isBroken) throw await Promise.resolve(new Error("EIO"));
      yield* inner.get(cid);
    }),
    onError: () => failed.resolve(),
  });
  await server.put(HELLO);
  const hand = await dial(server);
  await hand.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } });
  await failed.promise;
  // Long enough for a loop to show.
  for (let i = 0; i < 100; i++) await Promise.resolve();
  assertEquals(reads, 1);
  isBroken = false;
  await server.put(HELLO);
  assertEquals(summary([(await hand.hear())!]).blocks, [HELLO_CID.toString()]);
  assertEquals(await hand.rest(), []);
});

Deno.test("a server that cannot send on a stream resets it, though the peer says nothing more", async () => {
  const server = new BitswapServer();
  await server.put(HELLO);
  const [mine, theirs] = streamPair();
  const handled = server.handleStream({
    read: () => theirs.read(),
    write: () => Promise.reject(new Error("EPIPE")),
    closeWrite: () => theirs.closeWrite(),
    reset: (code) => theirs.reset(code),
  });
  await mine.write(protocolHeader());
  const hand = new Hand(mine, handled);
  await hand.say({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } });
  assertEquals(await failure(hand), "INTERNAL_ERROR");
});

/** A server whose store reads only once the gate is open, and its blocks. */
async function gatedServer(
  options: BitswapServerOptions,
  count: number,
): Promise<{ server: BitswapServer; cids: CID[]; open: () => void }> {
  const inner = new MemoryBlockstore();
  const gate = Promise.withResolvers<void>();
  const server = new BitswapServer({
    ...options,
    blockstore: storeWith(inner, async function* (cid) {
      await gate.promise;
      yield* inner.get(cid);
    }),
  });
  const cids = [];
  for (const block of testBlocks(count, 100)) cids.push(await server.put(block));
  return { server, cids, open: gate.resolve };
}

/** Wants that only the block itself answers well. */
function wantsOf(cids: readonly CID[]): BitswapMessageInit {
  return { wantlist: { entries: cids.map((cid) => ({ cid: cid.bytes, sendDontHave: true })) } };
}

Deno.test("a stream whose write throws at once, while another one is under way, is reset and nothing else", async () => {
  const server = new BitswapServer();
  await server.put(HELLO);
  const request = concat(
    protocolHeader(),
    ...encodeFramed({ wantlist: { entries: [{ cid: HELLO_CID.bytes }] } }),
  );
  const chunks = [request];
  const { promise: broken, reject } = Promise.withResolvers<void>();
  const codes: (string | undefined)[] = [];
  let writes = 0;
  await server.handleStream({
    read: () => Promise.resolve(chunks.shift() ?? null),
    write() {
      if (++writes === 1) return broken;
      reject(new Error("gone"));
      throw new Error("gone");
    },
    closeWrite: () => Promise.resolve(),
    reset: (code) => codes.push(code),
  });
  assert(codes.length > 0);
});

Deno.test("at the limit of wants a peer's streams wait for room, and nothing that is here is called missing", async () => {
  const { server, cids, open } = await gatedServer({ maxWantsPerPeer: 10 }, 60);
  const hands = [];
  for (const from of [0, 20, 40]) {
    const hand = await dial(server, "same");
    await hand.say(wantsOf(cids.slice(from, from + 15)));
    await hand.say(wantsOf(cids.slice(from + 15, from + 20)));
    hands.push(hand);
  }
  const rests = hands.map((hand) => hand.rest());
  // Another peer has room of its own.
  const other = await dial(server, "other");
  await other.say(wantsOf(cids.slice(0, 3)));
  assertEquals(server.ledger("same")!.wants, 10);
  open();
  assertEquals(summary(await other.rest()).blocks.length, 3);
  for (const [i, rest] of rests.entries()) {
    assertEquals(summary(await rest), {
      blocks: cids.slice(20 * i, 20 * i + 20).map(String),
      have: [],
      dontHave: [],
    });
  }
  assertEquals([server.ledger("same")!.wants, server.ledger("same")!.refused], [0, 0]);
});

Deno.test("a stream that waits for room gets that of a want which turns out to wait for its block", async () => {
  const server = new BitswapServer({ maxWantsPerPeer: 2 });
  await server.put(HELLO);
  const hand = await dial(server);
  const absent = [1, 2, 3, 4].map((i) => ({ cid: cidOf(Uint8Array.of(i)).bytes }));
  await hand.say({ wantlist: { entries: [...absent, { cid: HELLO_CID.bytes }] } });
  assertEquals(summary([(await hand.hear())!]).blocks, [HELLO_CID.toString()]);
  assertEquals(summary(await hand.rest()), { blocks: [], have: [], dontHave: [] });
  assertEquals(server.ledger("peer")?.refused, 3);
});

Deno.test("a stream that waits for room gets it when another one breaks", async () => {
  const { server, cids, open } = await gatedServer({ maxWantsPerPeer: 4 }, 8);
  const broken = await dial(server, "same");
  await broken.say(wantsOf(cids.slice(0, 4)));
  const hand = await dial(server, "same");
  await hand.say(wantsOf(cids.slice(4)));
  const rest = hand.rest();
  assertEquals(server.ledger("same")!.wants, 4);
  broken.stream.reset("CANCELLED");
  open();
  await broken.handled;
  assertEquals(summary(await rest).blocks.length, 4);
});

Deno.test("want-lists that wait for room count as unfinished messages of their peer", async () => {
  const { server, cids, open } = await gatedServer({ maxWantsPerPeer: 1, maxMessageLength: 1000 }, 4);
  const hands = [];
  // Some 1 200 bytes each, of 4 000.
  for (let i = 0; i < 4; i++) {
    const hand = await dial(server, "hoarder");
    await hand.say(wantsOf(cids));
    hands.push(hand);
  }
  assertEquals(await failure(hands[3]!), "EXCESSIVE_LOAD");
  open();
  for (const hand of hands.slice(0, 3)) assertEquals(summary(await hand.rest()).blocks.length, 4);
  const again = await dial(server, "hoarder");
  await again.say(wantsOf(cids));
  assertEquals(summary(await again.rest()).blocks.length, 4);
});

Deno.test("names that can be no block are answered, and looked for nowhere", async () => {
  const server = new BitswapServer();
  const odd = [
    new Uint8Array(),
    new Uint8Array(5),
    fromHex("01551114" + "00".repeat(20)),
    new Uint8Array(1000),
  ];
  const hand = await dial(server);
  await hand.say({ wantlist: { entries: odd.map((cid) => ({ cid, sendDontHave: true })) } });
  const messages = await hand.rest();
  assertEquals(
    messages.flatMap(({ blockPresences }) => blockPresences).map(({ type }) => type),
    Array(4).fill("dont-have"),
  );
});

Deno.test("a reader that stops reading stops the server's reading of the store, and holds up nobody else", async () => {
  let reads = 0;
  class Counting extends MemoryBlockstore {
    override *get(cid: CID): Generator<Uint8Array> {
      reads++;
      yield* super.get(cid);
    }
  }
  const server = new BitswapServer({ blockstore: new Counting() });
  const cids = [];
  for (const block of testBlocks(40, 262_144)) cids.push(await server.put(block));
  const idle = await dial(server, "idle");
  await idle.say({ wantlist: { entries: cids.map((cid) => ({ cid: cid.bytes })) } });
  const good = await dial(server, "good");
  await good.say({ wantlist: { entries: [{ cid: cids[39]!.bytes }] } });
  assertEquals(summary(await good.rest()).blocks.length, 1);
  assert(reads < 15, `${reads} reads`);
  idle.stream.reset("CANCELLED");
  await idle.handled;
  assertEquals(server.ledger("idle")!.wants, 0);
});

Deno.test("ledgers are bounded, and those with open streams stay", async () => {
  const server = new BitswapServer({ maxPeers: 3 });
  const held = await dial(server, "held");
  for (const peer of ["a", "b", "c", "d"]) await (await dial(server, peer)).rest();
  assertEquals(server.ledgers.map(({ peer }) => peer), ["held", "c", "d"]);
  await held.rest();
});

Deno.test("a peer that comes when every ledger is in use keeps its own, and passes no limit with a new stream", async () => {
  const server = new BitswapServer({ maxPeers: 2, maxServedBytes: 1500 });
  const cids = [];
  for (const block of testBlocks(3, 1000)) cids.push(await server.put(block));
  const busy = [await dial(server, "a"), await dial(server, "b")];
  let blocks = 0;
  for (const cid of cids) {
    const greedy = await dial(server, "greedy");
    await greedy.say({ wantlist: { entries: [{ cid: cid.bytes, sendDontHave: true }] } });
    try {
      blocks += summary(await greedy.rest()).blocks.length;
    } catch (error) {
      assertEquals((error as HtxError).code, "EXCESSIVE_LOAD");
      await greedy.handled;
    }
  }
  assertEquals(blocks, 1);
  // The bound holds again as soon as it can.
  for (const hand of busy) await hand.rest();
  await (await dial(server, "late")).rest();
  assertEquals(server.ledgers.map(({ peer }) => peer), ["greedy", "late"]);
});

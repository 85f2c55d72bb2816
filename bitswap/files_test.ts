import { assert, assertEquals, assertRejects } from "@std/assert";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { encode } from "@ipld/dag-pb";
import { HtxError, utf8 } from "./_core.ts";
import { BlockNotFoundError, MemoryBlockstore, VerifiedBlockstore } from "./blockstore.ts";
import { type CID, cidOf, DAG_PB_CODEC, joinBlock } from "./cid.ts";
import { BitswapClient } from "./client.ts";
import {
  addFile,
  type AddFileOptions,
  type BlockReader,
  catFile,
  type FileContent,
  statFile,
} from "./files.ts";
import { BitswapServer } from "./server.ts";
import { identityCid, longRun, memoryPeer, testBlocks } from "./_testing.ts";

async function rootOf(content: FileContent, options: AddFileOptions = {}): Promise<string> {
  return (await addFile(new VerifiedBlockstore(), content, options)).cid.toString();
}

async function cat(...args: Parameters<typeof catFile>): Promise<Uint8Array> {
  return joinBlock(await Array.fromAsync(catFile(...args)));
}

Deno.test("addFile() gives the roots that go-unixfs gives", async () => {
  // Soramitsu's fuhon, test/core/storage/unixfs ("MatchGo"): CIDv0 nodes, raw leaves. Apache-2.0.
  const vectors: [string, number, number, string][] = [
    ["[0     9)", 10, 2, "bafkreieqjdswwovkokzitxxsn4ppswzzsy2qs623duz5ivjhplglbygbou"],
    ["[0     10)", 10, 2, "bafkreiaymswyg525nktwb75n53rcwdqvjbfjgi5nu4glriglylthbnuxnu"],
    ["[0     10)[10   19)", 10, 2, "QmUyaoLFxpUpZra4qs65dMbrBMEERJt91JL3kdyKEXqLxN"],
    ["[0     10)[10     21)", 10, 2, "QmZ9KupPPphsds2Cbu7Ntb73tUHbyrZEgJisHMmw9AUfQP"],
    ["[0     10)[10    20)[10    30)", 10, 2, "QmSYvtzqeJY6zCRk31SdRweDD6z1bwP9GJY5bmKQ55XwWp"],
    ["[0     10)[10    20)[10     31)", 10, 2, "QmZ2Be9hJQhifpgASmQTGkL7j9KUaJC5W9siL6MnFSkLhd"],
    ["[0     10)[10    20)[10    30)", 5, 3, "QmYb4gZGCAkRdNZbc5npDzLJA34ZzPtdVDmESb9Xk76Ws2"],
  ];
  for (const [text, chunkSize, maxLinks, root] of vectors) {
    assertEquals(await rootOf(utf8(text), { chunkSize, maxLinks, cidVersion: 0 }), root, text);
  }
});

Deno.test("addFile() gives the roots that kubo prints", async () => {
  // `echo "hello world" | ipfs add`, `ipfs add` of an empty file, and both with --cid-version=1.
  const profile = "unixfs-v0-2015";
  assertEquals(
    await rootOf(utf8("hello world\n"), { profile }),
    "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
  );
  assertEquals(await rootOf([], { profile }), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
  assertEquals(await rootOf([]), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
  assertEquals(await rootOf(utf8("hello world\n")), cidOf(utf8("hello world\n")).toString());
});

Deno.test("a file of one chunk is its raw block, one byte more makes a dag-pb root", async () => {
  for (
    const [options, chunk] of [[{}, 262_144], [{ profile: "unixfs-v1-2025" }, 1_048_576]] as const
  ) {
    const bytes = testBlocks(1, chunk + 1)[0]!;
    assertEquals(await rootOf(bytes.subarray(0, chunk), options), cidOf(bytes.subarray(0, chunk)).toString());
    const { cid, size } = await addFile(new VerifiedBlockstore(), bytes, options);
    assertEquals([cid.code, cid.version, size], [0x70, 1, chunk + 1]);
  }
});

Deno.test("every kind of content, cut anyhow, gives the same root and comes back the same", async () => {
  const bytes = testBlocks(1, 100_000)[0]!;
  const store = new VerifiedBlockstore();
  const options = { chunkSize: 1000, maxLinks: 5 };
  const { cid } = await addFile(store, bytes, options);
  const cut = (size: number): Uint8Array[] => {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
    return pieces;
  };
  for (
    const content of [
      cut(999),
      cut(1),
      new Blob([bytes as Uint8Array<ArrayBuffer>]),
      ReadableStream.from(cut(7777)),
    ]
  ) {
    assertEquals(await rootOf(content, options), cid.toString());
  }
  assertEquals(await cat(store, cid), bytes);
  assertEquals(await cat(store, cid, { readAhead: 1 }), bytes);
  for (
    const [offset, length] of [[0, 1], [999, 2], [1000, 1000], [50_001, 12_345], [99_999, 100], [100_000, 5]]
  ) {
    assertEquals(
      await cat(store, cid, { offset: offset!, length: length! }),
      bytes.subarray(offset, offset! + length!),
    );
  }
  assertEquals(await cat(store, cid, { offset: 98_765 }), bytes.subarray(98_765));
  const wrapped = await addFile(store, bytes, { ...options, rawLeaves: false, cidVersion: 0 });
  assertEquals(wrapped.cid.version, 0);
  assertEquals(await cat(store, wrapped.cid, { readAhead: 2 }), bytes);
  assertEquals(await cat(store, (await addFile(store, [])).cid), new Uint8Array());
});

Deno.test("a file is read through a client, fetched block by block", async () => {
  const server = new BitswapServer();
  const bytes = testBlocks(1, 3_000_000)[0]!;
  const { cid } = await addFile(server.blockstore, bytes);
  await using client = new BitswapClient({
    peers: [memoryPeer("a", (stream) => void server.handleStream(stream))],
    blockstore: new MemoryBlockstore(),
  });
  assertEquals(await cat(client, cid), bytes);
  assertEquals(await cat(client.blockstore!, cid), bytes);
});

Deno.test("a missing block of a file is an error, in the middle too, and so is a directory", async () => {
  const store = new VerifiedBlockstore();
  const bytes = testBlocks(1, 10_000)[0]!;
  const { cid } = await addFile(store, bytes, { chunkSize: 1000 });
  await store.delete(cidOf(bytes.subarray(5000, 6000)));
  let got = 0;
  await assertRejects(async () => {
    for await (const piece of catFile(store, cid)) got += piece.length;
  }, BlockNotFoundError);
  assert(got <= 5000);
  await assertRejects(() => cat(store, cidOf(utf8("absent"))), BlockNotFoundError);

  const { importer } = await import("ipfs-unixfs-importer");
  const entries = await Array.fromAsync(
    importer([{ path: "dir/a/b.txt", content: utf8("in a directory") }], store, { wrapWithDirectory: false }),
  );
  const dir = entries.at(-1)!.cid;
  assertEquals((await assertRejects(() => cat(store, dir), HtxError)).code, "MALFORMED");
  assertEquals(await cat(store, dir, { path: "a/b.txt" }), utf8("in a directory"));
  assertEquals(await statFile(store, dir), { cid: dir, type: "directory", size: 0 });
  const found = await statFile(store, dir, { path: "a/b.txt" });
  assertEquals([found.type, found.size], ["file", 14]);
  assertEquals((await statFile(store, cid)).size, 10_000);
  assertEquals(
    (await assertRejects(() => cat(store, dir, { path: "a/c.txt" }), Error)).name,
    "NotFoundError",
  );
});

Deno.test("catFile() reads no further ahead than it is told, and stops when its reader leaves", async () => {
  const store = new VerifiedBlockstore();
  for (const rawLeaves of [true, false]) {
    const { cid } = await addFile(store, testBlocks(1, 200_000)[0]!, { chunkSize: 1000, rawLeaves });
    let reads = 0;
    const counting: BlockReader = {
      get(cid, options) {
        reads++;
        return store.get(cid, options);
      },
    };
    let taken = 0;
    for await (const piece of catFile(counting, cid, { readAhead: 4 })) {
      taken += piece.length;
      if (taken === 50_000) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        assert(reads < 70, `${reads}`);
        break;
      }
    }
    const before = reads;
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert(reads <= before + 8, `${before} ${reads}`);
  }
});

/** A file node over parts of these sizes. */
function fileNode(parts: readonly [cid: CID, size: number][]): Uint8Array {
  const data = new BinaryWriter().tag(1, WireType.Varint).int32(2);
  for (const [, size] of parts) data.tag(4, WireType.Varint).uint64(size);
  const Links = parts.map(([Hash]) => ({ Hash, Name: "", Tsize: 1 }));
  return encode({ Data: data.finish(), Links });
}

/** A file of one wrapped chunk. */
function wrapped(chunk: Uint8Array): Uint8Array {
  const data = new BinaryWriter().tag(1, WireType.Varint).int32(2).tag(2, WireType.LengthDelimited).bytes(
    chunk,
  );
  return encode({ Data: data.tag(3, WireType.Varint).uint64(chunk.length).finish(), Links: [] });
}

/** What `ipfs add --inline` makes: small blocks, wrapped or not, stand in the links to them. */
async function inlinedFile(store: VerifiedBlockstore): Promise<{ root: CID; stored: CID }> {
  const stored = await store.add(utf8("stored, "));
  const root = fileNode([
    [identityCid(utf8("raw, ")), 5],
    [stored, 8],
    [identityCid(wrapped(utf8("wrapped, ")), DAG_PB_CODEC), 9],
    [identityCid(utf8("raw, ")), 5],
  ]);
  return { root: await store.add(root, { codec: DAG_PB_CODEC }), stored };
}

Deno.test("catFile() takes inlined blocks from their CIDs, and asks nobody for them", async () => {
  const store = new VerifiedBlockstore();
  const { root, stored } = await inlinedFile(store);
  const asked: string[] = [];
  const noting: BlockReader = {
    get(cid, options) {
      asked.push(cid.toString());
      return store.get(cid, options);
    },
  };
  assertEquals(await cat(noting, root), utf8("raw, stored, wrapped, raw, "));
  assertEquals(asked, [root, stored].map(String));
  assertEquals(await cat(noting, root, { offset: 15, length: 8 }), utf8("apped, r"));

  asked.length = 0;
  const file = identityCid(wrapped(utf8("small")), DAG_PB_CODEC);
  const directory = identityCid(
    encode({ Data: new Uint8Array([8, 1]), Links: [{ Name: "a", Hash: file, Tsize: 5 }] }),
    DAG_PB_CODEC,
  );
  assertEquals(await cat(noting, file), utf8("small"));
  assertEquals(await cat(noting, identityCid(new Uint8Array())), new Uint8Array());
  assertEquals(await cat(noting, directory, { path: "a" }), utf8("small"));
  const { type, size } = await statFile(noting, directory, { path: "a" });
  assertEquals([type, size], ["file", 5]);
  assertEquals((await statFile(noting, directory)).type, "directory");
  assertEquals(asked, []);
});

Deno.test("a file with inlined blocks is read through a client, which stores none of them", async () => {
  const server = new BitswapServer();
  const { root } = await inlinedFile(server.blockstore);
  const blockstore = new MemoryBlockstore();
  await using client = new BitswapClient({
    peers: [memoryPeer("a", (stream) => void server.handleStream(stream))],
    blockstore,
  });
  assertEquals(await cat(client, root), utf8("raw, stored, wrapped, raw, "));
  assertEquals(blockstore.size, 2);
});

Deno.test("catFile() refuses more than 128 bytes inlined, and asks nobody for them", async () => {
  const store = new VerifiedBlockstore();
  const asked: string[] = [];
  const noting: BlockReader = {
    get(cid, options) {
      asked.push(cid.toString());
      return store.get(cid, options);
    },
  };
  for (const [length, isTaken] of [[128, true], [129, false]] as const) {
    const leaf = identityCid(new Uint8Array(length));
    const root = await store.add(fileNode([[leaf, length]]), { codec: DAG_PB_CODEC });
    for (const cid of [leaf, root]) {
      if (isTaken) {
        assertEquals(await cat(noting, cid), new Uint8Array(length));
        continue;
      }
      const error = await assertRejects(() => cat(noting, cid), HtxError);
      assertEquals([error.code, error.field], ["LIMIT_EXCEEDED", "cid"]);
    }
    assertEquals(asked.splice(0), [root.toString()]);
  }
});

/** A file whose last byte is followed by parts of size 0, 2^`levels` of them in `levels` blocks. */
async function hollowFile(store: VerifiedBlockstore, levels: number): Promise<CID> {
  const node = (parts: [cid: CID, size: number][]): Promise<CID> =>
    store.add(fileNode(parts), { codec: DAG_PB_CODEC });
  let hollow = await node([]);
  for (let level = 0; level < levels; level++) hollow = await node([[hollow, 0], [hollow, 0]]);
  return await node([[await store.add(utf8("a")), 1], [hollow, 0], [await store.add(utf8("b")), 1]]);
}

Deno.test("a file may be 2^53-1 bytes long by its sizes, and no byte longer", async () => {
  const store = new VerifiedBlockstore();
  const leaf = await store.add(utf8("a"));
  const most = Number.MAX_SAFE_INTEGER;
  const fits = await store.add(fileNode([[leaf, 1], [leaf, most - 1]]), { codec: DAG_PB_CODEC });
  assertEquals((await statFile(store, fits)).size, most);
  for (const sizes of [[1, most], [most, most], [most + 1]]) {
    const parts = sizes.map((size): [CID, number] => [leaf, size]);
    const root = await store.add(fileNode(parts), { codec: DAG_PB_CODEC });
    const error = await assertRejects(() => statFile(store, root), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "file"], `${sizes}`);
    await assertRejects(() => cat(store, root), HtxError);
  }
});

Deno.test("catFile() reads no part that adds no byte", async () => {
  const store = new VerifiedBlockstore();
  const root = await hollowFile(store, 40);
  let reads = 0;
  const counting: BlockReader = {
    get(cid, options) {
      reads++;
      return store.get(cid, options);
    },
  };
  assertEquals(await cat(counting, root), utf8("ab"));
  assertEquals(reads, 3);
});

Deno.test("catFile() reads no file on whose way down more than 262144 parts wait, and one with as many", async () => {
  const store = new VerifiedBlockstore();
  const one = identityCid(utf8("b"));
  const over = async (below: CID, size: number, waiting: number): Promise<CID> => {
    const beside = Array.from({ length: waiting }, (): [CID, number] => [one, 1]);
    return await store.add(fileNode([[below, size], ...beside]), { codec: DAG_PB_CODEC });
  };
  let [way, size] = [await store.add(utf8("a")), 1];
  for (let level = 0; level < 3; level++) {
    way = await over(way, size, 65_536);
    size += 65_536;
  }
  for await (const piece of catFile(store, await over(way, size, 65_535))) {
    assertEquals(piece, utf8("a"));
    break;
  }
  const deeper = await over(way, size, 65_536);
  const error = await assertRejects(() => cat(store, deeper), HtxError);
  assertEquals(error.code, "LIMIT_EXCEEDED");
});

Deno.test("what waits to be read keeps its CID, and not the block that it is linked in", async () => {
  const store = new VerifiedBlockstore();
  const parts: [CID, number][] = [];
  for (const block of testBlocks(100, 10)) parts.push([await store.add(block), 10]);
  const root = await store.add(fileNode(parts), { codec: DAG_PB_CODEC });
  const kept: number[] = [];
  const noting: BlockReader = {
    get(cid, options) {
      kept.push(cid.multihash.bytes.buffer.byteLength);
      return store.get(cid, options);
    },
  };
  assertEquals((await cat(noting, root)).length, 1000);
  assertEquals(Math.max(...kept), root.bytes.length);
});

Deno.test("catFile() lets timers run, and so its signal abort, while all of its blocks are at hand", async () => {
  const store = new VerifiedBlockstore();
  const node = (child: CID, size: number): Promise<CID> => {
    const data = new BinaryWriter().tag(1, WireType.Varint).int32(2);
    for (let i = 0; i < 2; i++) data.tag(4, WireType.Varint).uint64(size);
    const Links = [0, 1].map(() => ({ Hash: child, Name: "", Tsize: 1 }));
    return store.add(encode({ Data: data.finish(), Links }), { codec: DAG_PB_CODEC });
  };
  let root = await store.add(utf8("a"));
  for (let level = 0; level < 40; level++) root = await node(root, 2 ** level);
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("enough")), 1);
  // 2^40 bytes, which nothing but the signal ends.
  await assertRejects(
    async () => {
      for await (const piece of catFile(store, root, { signal: controller.signal })) {
        assertEquals(piece, utf8("a"));
      }
    },
    Error,
    "enough",
  );
  clearTimeout(timer);
});

Deno.test("a large file goes in and comes out in constant memory", async () => {
  const mebibytes = longRun() ? 1024 : 64;
  const block = testBlocks(1, 1 << 20)[0]!;
  function* content(): Generator<Uint8Array> {
    for (let i = 0; i < mebibytes; i++) {
      new DataView(block.buffer).setUint32(0, i);
      yield block.slice();
    }
  }
  /** Keeps roots and nodes, and leaves by their number alone. */
  class Forgetful extends MemoryBlockstore {
    readonly leaves = new Map<string, number>();
    override put(cid: CID, bytes: Uint8Array): CID | Promise<CID> {
      if (cid.code !== 0x55) return super.put(cid, bytes);
      this.leaves.set(cid.toString(), bytes.length);
      return cid;
    }
  }
  const store = new Forgetful();
  const start = Deno.memoryUsage().rss;
  let peak = 0;
  const { cid, size } = await addFile(store, content(), {
    onProgress: () => peak = Math.max(peak, Deno.memoryUsage().rss - start),
  });
  assertEquals(size, mebibytes << 20);
  // Each mebibyte differs from the others in its first chunk.
  assertEquals(store.leaves.size, mebibytes + 3);
  let read = 0;
  let outstanding = 0;
  let most = 0;
  const reader: BlockReader = {
    get(cid) {
      const length = store.leaves.get(cid.toString());
      if (length === undefined) return store.get(cid);
      most = Math.max(most, ++outstanding);
      return [new Uint8Array(length)];
    },
  };
  for await (const piece of catFile(reader, cid)) {
    outstanding--;
    read += piece.length;
    if (read % (16 << 20) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assertEquals(read, mebibytes << 20);
  assert(most <= 33, `${most} leaves read ahead`);
  // What a heap holds is not exact; a copy of the file would be far above this in the long run.
  assert(peak < 400 << 20, `${peak >> 20} MiB`);
});

Deno.test("addFile() and catFile() heed their signal and refuse impossible options", async () => {
  const store = new VerifiedBlockstore();
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => addFile(store, [], { signal }), Error, "enough");
  await assertRejects(() => cat(store, cidOf(utf8("x")), { signal }), Error, "enough");
  const controller = new AbortController();
  function* content(): Generator<Uint8Array> {
    yield new Uint8Array(10);
    controller.abort(new Error("midway"));
    yield new Uint8Array(10);
  }
  await assertRejects(() => addFile(store, content(), { signal: controller.signal }), Error, "midway");
  for (const options of [{ chunkSize: 0 }, { chunkSize: 3e6 }, { maxLinks: 1 }, { chunkSize: 1.5 }]) {
    await assertRejects(() => addFile(store, [], options), RangeError);
  }
  for (const options of [{ offset: -1 }, { length: -1 }, { readAhead: 0 }, { offset: 0.5 }]) {
    await assertRejects(() => cat(store, cidOf(utf8("x")), options), RangeError);
  }
});

Deno.test("addFile(), catFile() and statFile() that are given up wait for no store", async () => {
  const cid = cidOf(utf8("hello"));
  const asked = Promise.withResolvers<void>();
  const stuck = (): Promise<never> => {
    asked.resolve();
    return new Promise(() => {});
  };
  const store = new MemoryBlockstore();
  store.put = stuck;
  const ways: ((given: { signal: AbortSignal }) => Promise<unknown>)[] = [
    (given) => addFile(store, utf8("hello"), given),
    (given) => catFile({ get: stuck }, cid, given).next(),
    (given) => statFile({ get: stuck }, cid, given),
  ];
  for (const way of ways) {
    const stop = new AbortController();
    const end = assertRejects(() => way({ signal: stop.signal }), Error, "enough");
    await asked.promise;
    stop.abort(new Error("enough"));
    await end;
  }
});

Deno.test("addFile() that is given up lets go of a stream that gives nothing more", async () => {
  const begun = Promise.withResolvers<void>();
  const cancelled = Promise.withResolvers<void>();
  const stream = new ReadableStream<Uint8Array>({
    pull(): Promise<void> {
      begun.resolve();
      return new Promise(() => {});
    },
    cancel: () => cancelled.resolve(),
  }, { highWaterMark: 0 });
  const stop = new AbortController();
  const end = assertRejects(
    () => addFile(new MemoryBlockstore(), stream, { signal: stop.signal }),
    Error,
    "enough",
  );
  await begun.promise;
  stop.abort(new Error("enough"));
  await end;
  await cancelled.promise;
});

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MemoryBlockstore as EcosystemMemory } from "blockstore-core/memory";
import { HtxError } from "./_core.ts";
import {
  BlockNotFoundError,
  type Blockstore,
  type CorruptBlock,
  MemoryBlockstore,
  VerifiedBlockstore,
} from "./blockstore.ts";
import { blockLength, type CID, cidOf, joinBlock, parseCid } from "./cid.ts";
import { openDirectory } from "./directory.ts";
import { MAX_BLOCK_LENGTH } from "./message.ts";

const HELLO = new TextEncoder().encode("hello");
const HELLO_CID = cidOf(HELLO);
const OTHER = new TextEncoder().encode("other");

async function bytesOf(store: Blockstore, cid: CID): Promise<Uint8Array> {
  const pieces = [];
  for await (const piece of store.get(cid)) pieces.push(piece);
  return joinBlock(pieces);
}

async function temporary(run: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await run(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

async function* stream(...pieces: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}

async function contract(store: VerifiedBlockstore): Promise<void> {
  assertEquals(await store.has(HELLO_CID), false);
  await assertRejects(() => bytesOf(store, HELLO_CID), BlockNotFoundError);
  assertEquals((await store.put(HELLO_CID, HELLO)).toString(), HELLO_CID.toString());
  assertEquals(await store.has(HELLO_CID), true);
  assertEquals(await bytesOf(store, HELLO_CID), HELLO);
  // The same block under another codec and version is the same block.
  assertEquals(await bytesOf(store, cidOf(HELLO, 0x70).toV0()), HELLO);

  const other = cidOf(OTHER);
  await store.put(other, [OTHER.subarray(0, 2), OTHER.subarray(2)]);
  await store.put(other, stream(OTHER.subarray(0, 1), OTHER.subarray(1)));
  assertEquals(await bytesOf(store, other), OTHER);

  const empty = cidOf(new Uint8Array());
  await assertRejects(() => bytesOf(store, empty), BlockNotFoundError);
  await store.put(empty, new Uint8Array());
  assertEquals(await store.has(empty), true);
  assertEquals(await store.getBytes(empty), new Uint8Array());

  const all = [];
  for await (const { cid, bytes } of store.getAll()) {
    const pieces = [];
    for await (const piece of bytes) pieces.push(piece);
    assertEquals(cidOf(pieces).toString(), cid.toString());
    all.push(cid.toString());
  }
  assertEquals(all.sort(), [HELLO_CID, other, empty].map(String).sort());

  await store.delete(other);
  await store.delete(other);
  assertEquals(await store.has(other), false);
}

async function refusals(store: VerifiedBlockstore): Promise<void> {
  const cid = HELLO_CID;
  for (
    const wrong of [
      OTHER,
      HELLO.subarray(1),
      new Uint8Array(),
      [HELLO, HELLO],
      new Uint8Array(MAX_BLOCK_LENGTH),
    ]
  ) {
    const error = await assertRejects(() => store.put(cid, wrong), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "block"]);
  }
  const large = new Uint8Array(MAX_BLOCK_LENGTH + 1);
  assertEquals((await assertRejects(() => store.put(cidOf(large), large), HtxError)).code, "LIMIT_EXCEEDED");
  assertEquals((await assertRejects(() => store.put(cid, [large, large]), HtxError)).code, "LIMIT_EXCEEDED");
  // sha1, truncated sha2-256, identity: legal names that prove too little.
  const weak = [
    "01551114aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
    "0155120a2cf24dba5fb0a30e26e8",
    "01550005" + "68656c6c6f",
  ];
  for (const hex of weak) {
    const cid = parseCid(Uint8Array.from(hex.match(/../g)!, (pair) => Number.parseInt(pair, 16)));
    assertEquals((await assertRejects(() => store.put(cid, HELLO), HtxError)).code, "UNSUPPORTED");
    assertEquals(await store.has(cid), false);
    await assertRejects(() => bytesOf(store, cid), BlockNotFoundError);
  }
  assertEquals(await store.has(cid), false);
}

Deno.test("VerifiedBlockstore over memory keeps the contract", () => contract(new VerifiedBlockstore()));
Deno.test("VerifiedBlockstore over blockstore-core keeps the contract", () =>
  contract(new VerifiedBlockstore(new EcosystemMemory())));
Deno.test("openDirectory() keeps the contract", () =>
  temporary(async (path) => await contract(await openDirectory(path, { sync: false }))));
Deno.test("openDirectory() keeps the contract, flushed", () =>
  temporary(async (path) => await contract(await openDirectory(path))));

Deno.test("e-35 put() refuses a wrong, truncated, empty, oversized or weakly named block", async () => {
  await refusals(new VerifiedBlockstore());
  await refusals(new VerifiedBlockstore(new EcosystemMemory()));
  await temporary(async (path) => await refusals(await openDirectory(path)));
});

Deno.test("e-35 a block that went bad is reported, quarantined, absent, and good again after a put", async () => {
  const inner = new EcosystemMemory();
  const reports: CorruptBlock[] = [];
  const store = new VerifiedBlockstore(inner, { onCorrupt: (block) => reports.push(block) });
  for (const wrong of [OTHER, HELLO.subarray(1), new Uint8Array(), new Uint8Array(MAX_BLOCK_LENGTH + 1)]) {
    await store.put(HELLO_CID, HELLO);
    await inner.put(HELLO_CID, wrong);
    await assertRejects(() => bytesOf(store, HELLO_CID), BlockNotFoundError);
    assertEquals(await store.has(HELLO_CID), false);
    assertEquals(await inner.has(HELLO_CID), false);
    assertEquals(reports.pop()?.cid.toString(), HELLO_CID.toString());
    assertEquals(reports, []);
  }
  await store.put(HELLO_CID, HELLO);
  assertEquals(await bytesOf(store, HELLO_CID), HELLO);
});

Deno.test("a good block that is longer than the limit is absent, and stays where it is", async () => {
  const inner = new EcosystemMemory();
  const reports: CorruptBlock[] = [];
  const onCorrupt = (block: CorruptBlock): number => reports.push(block);
  const store = new VerifiedBlockstore(inner, { maxBlockLength: 4, onCorrupt });
  await inner.put(HELLO_CID, HELLO);
  await assertRejects(() => bytesOf(store, HELLO_CID), BlockNotFoundError);
  assertEquals(await store.has(HELLO_CID), false);
  await assertRejects(() => bytesOf(store, HELLO_CID), BlockNotFoundError);
  assertEquals(reports, []);
  assertEquals(await bytesOf(new VerifiedBlockstore(inner), HELLO_CID), HELLO);
  // What is as long and wrong is bad all the same.
  await inner.put(cidOf(OTHER), HELLO);
  await assertRejects(() => bytesOf(store, cidOf(OTHER)), BlockNotFoundError);
  assertEquals(await inner.has(cidOf(OTHER)), false);
  assertEquals(reports.map(({ length }) => length), [HELLO.length]);
});

Deno.test("e-35 a bad block in a store that cannot delete stays hidden until it is put again", async () => {
  class Stubborn extends EcosystemMemory {
    override delete(): Promise<void> {
      return Promise.reject(new Error("read-only"));
    }
  }
  const inner = new Stubborn();
  const store = new VerifiedBlockstore(inner);
  await inner.put(HELLO_CID, OTHER);
  assertEquals(await store.has(HELLO_CID), true);
  await assertRejects(() => store.getBytes(HELLO_CID), BlockNotFoundError);
  assertEquals(await store.has(HELLO_CID), false);
  await assertRejects(() => store.getBytes(HELLO_CID), BlockNotFoundError);
  await store.put(HELLO_CID, HELLO);
  assertEquals(await store.has(HELLO_CID), true);
  assertEquals(await store.getBytes(HELLO_CID), HELLO);
});

Deno.test("e-35 changing an array after it was put, or after it was read, serves no wrong byte", async () => {
  const store = new VerifiedBlockstore();
  const mine = HELLO.slice();
  await store.put(HELLO_CID, mine);
  mine[0] = 0;
  const read = await store.getBytes(HELLO_CID);
  assertEquals(read, HELLO);
  read[0] = 0;
  await assertRejects(() => store.getBytes(HELLO_CID), BlockNotFoundError);
});

Deno.test("MemoryBlockstore refuses what does not fit, and keeps what it has", () => {
  const store = new MemoryBlockstore({ maxBytes: 10 });
  void store.put(HELLO_CID, HELLO);
  void store.put(cidOf(OTHER), OTHER);
  assertEquals([store.bytes, store.size], [10, 2]);
  const six = new Uint8Array(6);
  const error = assertThrows(() => store.put(cidOf(six), six), HtxError);
  assertEquals(error.code, "STORE_FAILED");
  void store.put(HELLO_CID, HELLO);
  assertEquals([store.bytes, store.size, store.has(HELLO_CID)], [10, 2, true]);
  store.delete(HELLO_CID);
  assertEquals([store.bytes, store.size], [5, 1]);
  assertThrows(() => new MemoryBlockstore({ maxBytes: -1 }), RangeError);
  for (const maxBlockLength of [-1, NaN]) {
    assertThrows(() => new VerifiedBlockstore(undefined, { maxBlockLength }), RangeError);
  }
});

Deno.test("MemoryBlockstore evicts what was not used for longest, when told to", () => {
  const store = new MemoryBlockstore({ maxBytes: 10, whenFull: "evict" });
  void store.put(HELLO_CID, HELLO);
  void store.put(cidOf(OTHER), OTHER);
  assertEquals(blockLength([...store.get(HELLO_CID)]), 5);
  const three = new Uint8Array(3);
  void store.put(cidOf(three), three);
  assertEquals([store.has(HELLO_CID), store.has(cidOf(OTHER)), store.bytes], [true, false, 8]);
  const eleven = new Uint8Array(11);
  assertThrows(() => store.put(cidOf(eleven), eleven), HtxError);
  assertEquals(store.size, 2);
});

Deno.test("a block in memory keeps its CID, and not what the CID was read from", async () => {
  const archive = new Uint8Array(100_000);
  archive.set(HELLO_CID.bytes, 500);
  const cid = parseCid(archive.subarray(500, 500 + HELLO_CID.bytes.length));
  const memory = new MemoryBlockstore();
  const stores = [memory, new VerifiedBlockstore(memory), new VerifiedBlockstore(new MemoryBlockstore())];
  for (const store of stores) {
    await store.put(cid, HELLO);
    for await (const pair of store.getAll()) {
      assert(pair.cid.equals(HELLO_CID));
      assertEquals(pair.cid.multihash.digest.buffer.byteLength, HELLO_CID.multihash.bytes.length);
    }
  }
});

Deno.test("every call of a store heeds an aborted signal", async () => {
  const signal = AbortSignal.abort(new Error("enough"));
  for (const store of [new VerifiedBlockstore(), new VerifiedBlockstore(new EcosystemMemory())]) {
    await assertRejects(() => store.put(HELLO_CID, HELLO, { signal }), Error, "enough");
    await assertRejects(() => store.getBytes(HELLO_CID, { signal }), Error, "enough");
    await assertRejects(async () => await store.delete(HELLO_CID, { signal }), Error, "enough");
    await assertRejects(async () => await store.has(HELLO_CID, { signal }), Error, "enough");
  }
});

Deno.test("a directory puts bad blocks aside, and fetches of them find nothing", () =>
  temporary(async (path) => {
    const reports: CorruptBlock[] = [];
    const store = await openDirectory(path, { onCorrupt: (block) => reports.push(block), sync: false });
    await store.put(HELLO_CID, HELLO);
    const files = await blockFiles(path);
    assertEquals(files.length, 1);
    await Deno.writeFile(files[0]!, OTHER);
    await assertRejects(() => store.getBytes(HELLO_CID), BlockNotFoundError);
    assertEquals(reports.map(({ length }) => length), [5]);
    assertEquals(await blockFiles(path), []);
    assertEquals((await Array.fromAsync(Deno.readDir(`${path}/.quarantine`))).length, 1);
    assertEquals(await Array.fromAsync(store.getAll()), []);
    await store.put(HELLO_CID, HELLO);
    assertEquals(await store.getBytes(HELLO_CID), HELLO);
  }));

Deno.test("a directory is readable by blockstore-fs, and reads what blockstore-fs wrote", () =>
  temporary(async (path) => {
    const { FsBlockstore } = await import("blockstore-fs");
    const store = await openDirectory(path);
    await store.put(HELLO_CID, HELLO);
    const theirs = new FsBlockstore(path);
    await theirs.open();
    assertEquals(new Uint8Array(await bytesOf(theirs, HELLO_CID)), HELLO);
    await theirs.put(cidOf(OTHER), OTHER);
    assertEquals(await store.getBytes(cidOf(OTHER)), OTHER);
  }));

Deno.test("many puts of one block at once leave that block and no temporary file", () =>
  temporary(async (path) => {
    const [a, b] = await Promise.all([
      openDirectory(path, { sync: false }),
      openDirectory(path, { sync: false }),
    ]);
    const block = crypto.getRandomValues(new Uint8Array(50_000));
    const cid = cidOf(block);
    await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? a : b).put(cid, block)));
    assertEquals(await a.getBytes(cid), block);
    assertEquals(await Array.fromAsync(Deno.readDir(`${path}/.tmp`)), []);
  }));

Deno.test("opening a directory clears old leftovers of a crash and leaves young ones", () =>
  temporary(async (path) => {
    await openDirectory(path);
    await Deno.writeFile(`${path}/.tmp/old`, HELLO);
    await Deno.utime(`${path}/.tmp/old`, 1, 1);
    await Deno.writeFile(`${path}/.tmp/young`, HELLO);
    const store = await openDirectory(path);
    assertEquals((await Array.fromAsync(Deno.readDir(`${path}/.tmp`))).map(({ name }) => name), ["young"]);
    assertEquals(await Array.fromAsync(store.getAll()), []);
  }));

async function blockFiles(path: string): Promise<string[]> {
  const files = [];
  for await (const entry of Deno.readDir(path)) {
    if (!entry.isDirectory || entry.name.startsWith(".")) continue;
    for await (const file of Deno.readDir(`${path}/${entry.name}`)) {
      files.push(`${path}/${entry.name}/${file.name}`);
    }
  }
  return files;
}

Deno.test("nothing that was stored is lost when the process is killed in the middle of puts", () =>
  temporary(async (path) => {
    const child = new Deno.Command("deno", {
      args: ["run", "--quiet", "-A", new URL("./testdata/put_until_killed.ts", import.meta.url).href, path],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const stored: string[] = [];
    let text = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop()!;
      stored.push(...lines);
      if (stored.length >= 40) child.kill("SIGKILL");
    }
    assertEquals((await child.status).signal, "SIGKILL");
    const store = await openDirectory(path, { onCorrupt: ({ cid }) => assert(false, `${cid} is torn`) });
    for (const text of stored) {
      const bytes = await store.getBytes(parseCid(text));
      assertEquals(cidOf(bytes).toString(), text);
    }
    // Whatever else has a name is whole as well.
    let count = 0;
    for await (const { bytes } of store.getAll()) {
      for await (const piece of bytes) assert(piece.length > 0);
      count++;
    }
    assert(count >= stored.length);
  }));

Deno.test("an onCorrupt that throws changes nothing: the block is absent", async () => {
  const inner = new MemoryBlockstore();
  const block = new Uint8Array([1]);
  void inner.put(cidOf(block), new Uint8Array([2]));
  const store = new VerifiedBlockstore(inner, {
    onCorrupt(): never {
      throw new Error("mine");
    },
  });
  assertEquals(await store.read(cidOf(block)), undefined);
  assert(!inner.has(cidOf(block)));
});

Deno.test("a memory store with a method of its own is used through it", async () => {
  const inner = new MemoryBlockstore();
  const block = new Uint8Array([1]);
  await inner.put(cidOf(block), block);
  inner.get = (): never => {
    throw new Error("mine");
  };
  await assertRejects(async () => await new VerifiedBlockstore(inner).read(cidOf(block)), Error, "mine");
});

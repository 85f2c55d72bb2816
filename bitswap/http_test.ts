import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { encode as encodeNode } from "@ipld/dag-pb";
import { CID as MultiformatsCid } from "multiformats/cid";
import { CarReader } from "@ipld/car/reader";
import { HtxError, utf8 } from "./_core.ts";
import { type Blockstore, MemoryBlockstore, VerifiedBlockstore } from "./blockstore.ts";
import { type CID, cidOf, DAG_PB_CODEC, joinBlock, multihashHex, parseCid } from "./cid.ts";
import { addFile, catFile } from "./files.ts";
import { CAR_MEDIA_TYPE, type FetchHandler, httpGateway, RAW_MEDIA_TYPE } from "./http.ts";
import { identityCid, storeWith as memoryWith, testBlocks } from "./_testing.ts";

const HELLO = utf8("hello");
const HELLO_CID = cidOf(HELLO);

async function storeWith(...blocks: Uint8Array[]): Promise<VerifiedBlockstore> {
  const store = new VerifiedBlockstore();
  for (const block of blocks) await store.add(block);
  return store;
}

/** A store whose reads fail. */
function failingStore(error: Error): Blockstore {
  const store = new MemoryBlockstore();
  store.get = (): never => {
    throw error;
  };
  return store;
}

function ask(
  handler: FetchHandler,
  path: string,
  headers: Record<string, string> = {},
  method = "GET",
): Promise<Response> {
  return handler(new Request(`http://cas${path}`, { method, headers }));
}

interface Car {
  roots: string[];
  cids: string[];
}

/** Reads a CAR, and checks each block in it. */
async function readCar(response: Response): Promise<Car> {
  assertEquals(response.status, 200);
  const reader = await CarReader.fromBytes(await response.bytes());
  const cids = [];
  for await (const { cid, bytes } of reader.blocks()) {
    assertEquals(cidOf(bytes, cid.code).multihash.digest, cid.multihash.digest);
    cids.push(cid.toString());
  }
  return { roots: (await reader.getRoots()).map(String), cids };
}

/** The blocks of a CAR with those that come twice. */
async function carCids(response: Response): Promise<string[]> {
  const { CarBlockIterator } = await import("@ipld/car/iterator");
  const cids = [];
  for await (const { cid } of await CarBlockIterator.fromBytes(await response.bytes())) {
    cids.push(cid.toString());
  }
  return cids;
}

Deno.test("a raw block comes with the headers of the specification", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  const response = await ask(handler, `/ipfs/${HELLO_CID}?format=raw`);
  assertEquals(await response.bytes(), HELLO);
  assertEquals(response.status, 200);
  assertEquals(Object.fromEntries(response.headers), {
    "cache-control": "public, max-age=29030400, immutable",
    "content-disposition": `attachment; filename="${HELLO_CID}.bin"`,
    "content-length": "5",
    "content-type": RAW_MEDIA_TYPE,
    "etag": `"${HELLO_CID}.raw"`,
    "vary": "accept",
    "x-content-type-options": "nosniff",
    "x-ipfs-path": `/ipfs/${HELLO_CID}`,
    "x-ipfs-roots": HELLO_CID.toString(),
  });
  const head = await ask(handler, `/ipfs/${HELLO_CID}?format=raw`, {}, "HEAD");
  assertEquals([head.status, head.body, head.headers.get("content-length")], [200, null, "5"]);
  const accepted = await ask(handler, `/ipfs/${HELLO_CID}`, { accept: RAW_MEDIA_TYPE });
  assertEquals(await accepted.bytes(), HELLO);
  assertEquals(accepted.headers.get("content-location"), `/ipfs/${HELLO_CID}?format=raw`);
});

Deno.test("a block is found under every spelling of its CID, the bare multihash too", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  for (
    const name of [
      multihashHex(HELLO_CID),
      cidOf(HELLO, 0x70).toV0().toString(),
      cidOf(HELLO, 0x70).toString(),
    ]
  ) {
    assertEquals(await (await ask(handler, `/ipfs/${name}?format=raw`)).bytes(), HELLO);
  }
});

Deno.test("format= goes before Accept, Accept is weighed, and what is not here is 406", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  const path = `/ipfs/${HELLO_CID}`;
  const type = async (query: string, accept: string | undefined): Promise<string | number> => {
    const response = await ask(handler, path + query, accept === undefined ? {} : { accept });
    await response.body?.cancel();
    return response.status === 200 ? response.headers.get("content-type")!.split(";")[0]! : response.status;
  };
  const cases: [string, string | undefined, string | number][] = [
    ["?format=raw", CAR_MEDIA_TYPE, RAW_MEDIA_TYPE],
    ["?format=car", RAW_MEDIA_TYPE, CAR_MEDIA_TYPE],
    ["?format=car", undefined, CAR_MEDIA_TYPE],
    ["", `${CAR_MEDIA_TYPE};version=1`, CAR_MEDIA_TYPE],
    ["", `text/html, ${CAR_MEDIA_TYPE};q=0.5, ${RAW_MEDIA_TYPE};q=0.9`, RAW_MEDIA_TYPE],
    ["", `${RAW_MEDIA_TYPE};q=0, ${CAR_MEDIA_TYPE};q=0.1`, CAR_MEDIA_TYPE],
    ["", `${CAR_MEDIA_TYPE};version=2, ${CAR_MEDIA_TYPE};version=1;q=0.5`, CAR_MEDIA_TYPE],
    ["", RAW_MEDIA_TYPE.toUpperCase(), RAW_MEDIA_TYPE],
    ["", "*/*", RAW_MEDIA_TYPE],
    ["", "application/*", RAW_MEDIA_TYPE],
    // A wildcard says nothing of what is named beside it.
    ["", `*/*, ${RAW_MEDIA_TYPE};q=0`, CAR_MEDIA_TYPE],
    ["", `*/*;q=0.5, ${RAW_MEDIA_TYPE};q=0.1`, CAR_MEDIA_TYPE],
    ["", `${CAR_MEDIA_TYPE};version=2, */*;q=0.1`, RAW_MEDIA_TYPE],
    ["", `${CAR_MEDIA_TYPE};q=0, */*;q=0.1`, RAW_MEDIA_TYPE],
    ["", "*/*, application/*;q=0", 406],
    ["", `${RAW_MEDIA_TYPE};q=0`, 406],
    ["", `${RAW_MEDIA_TYPE};q=x, ${CAR_MEDIA_TYPE};q=-1`, 406],
    ["", undefined, 400],
    ["", "", 400],
    ["", "text/html", 406],
    ["", `${CAR_MEDIA_TYPE};version=2`, 406],
    ["", `${CAR_MEDIA_TYPE};order=rnd`, 406],
    ["?format=car&car-version=2", undefined, 406],
    ["?format=tar", RAW_MEDIA_TYPE, 406],
    ["?format=ipns-record", RAW_MEDIA_TYPE, 400],
    ["?format=car&dag-scope=some", undefined, 400],
    ["?format=car&entity-bytes=1", undefined, 400],
  ];
  for (const [query, accept, expected] of cases) {
    assertEquals(await type(query, accept), expected, `${query} ${accept}`);
  }
});

Deno.test("400, 404, 405 and 412 are told apart", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  const absent = cidOf(utf8("absent"));
  const cases: [string, string, Record<string, string>, number][] = [
    ["GET", `/ipfs/${absent}?format=raw`, {}, 404],
    ["HEAD", `/ipfs/${absent}?format=raw`, {}, 404],
    ["GET", `/ipfs/${absent}?format=car`, {}, 404],
    ["HEAD", `/ipfs/${absent}?format=car`, {}, 404],
    ["GET", `/ipfs/${absent}?format=raw`, { "cache-control": "only-if-cached" }, 412],
    ["HEAD", `/ipfs/${absent}?format=car`, { "cache-control": "only-if-cached" }, 412],
    ["GET", `/ipfs/${HELLO_CID}?format=raw`, { "cache-control": "only-if-cached" }, 200],
    ["GET", "/ipfs/bafynope?format=raw", {}, 400],
    ["GET", "/ipfs/?format=raw", {}, 400],
    ["GET", "/ipfs/%ff?format=raw", {}, 400],
    ["GET", `/ipfs/${HELLO_CID}/a?format=raw`, {}, 400],
    ["GET", `/ipfs/${HELLO_CID}/a?format=car`, {}, 404],
    ["GET", `/ipfs/${HELLO_CID}${"/a".repeat(300)}?format=car`, {}, 400],
    ["GET", "/", {}, 404],
    ["PUT", "/", {}, 404],
    ["GET", "/ipns/example.org", {}, 404],
    ["POST", `/ipfs/${HELLO_CID}?format=raw`, {}, 405],
    ["DELETE", `/ipfs/${HELLO_CID}?format=raw`, {}, 405],
  ];
  for (const [method, path, headers, status] of cases) {
    const response = await ask(handler, path, headers, method);
    await response.body?.cancel();
    assertEquals(response.status, status, `${method} ${path}`);
    if (status !== 200) assertEquals(response.headers.get("cache-control"), "no-store");
  }
});

Deno.test("Content-Location names what was negotiated, so that its URL alone gives the same", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  const path = `/ipfs/${HELLO_CID}`;
  const cases: [query: string, accept: string, location: string | null][] = [
    ["", RAW_MEDIA_TYPE, "?format=raw"],
    ["", CAR_MEDIA_TYPE, "?format=car"],
    ["", `${CAR_MEDIA_TYPE};dups=y`, "?format=car&car-dups=y"],
    ["?dag-scope=block", `${CAR_MEDIA_TYPE};dups=y`, "?dag-scope=block&format=car&car-dups=y"],
    ["?format=car", `${CAR_MEDIA_TYPE};dups=y`, "?format=car&car-dups=y"],
    ["?format=car&car-dups=n", `${CAR_MEDIA_TYPE};dups=y`, null],
    ["?format=car&car-dups=y", "*/*", null],
    ["?format=raw", CAR_MEDIA_TYPE, null],
  ];
  for (const [query, accept, location] of cases) {
    const { headers } = await ask(handler, path + query, { accept }, "HEAD");
    assertEquals(headers.get("content-location"), location === null ? null : path + location, query + accept);
    if (location === null) continue;
    const again = await ask(handler, path + location, {}, "HEAD");
    assertEquals(again.headers.get("content-type"), headers.get("content-type"));
    assertEquals(again.headers.get("content-location"), null);
  }
});

Deno.test("If-None-Match is answered with 304", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  for (const format of ["raw", "car"]) {
    const path = `/ipfs/${HELLO_CID}?format=${format}`;
    const etag = (await ask(handler, path, {}, "HEAD")).headers.get("etag")!;
    for (const given of [etag, `"other", ${etag}`, "*", `W/${etag.replace("W/", "")}`]) {
      const response = await ask(handler, path, { "if-none-match": given });
      assertEquals([response.status, response.body, response.headers.get("etag")], [304, null, etag], given);
    }
    const other = await ask(handler, path, { "if-none-match": `"other"` });
    await other.body?.cancel();
    assertEquals(other.status, 200);
  }
});

Deno.test("a file name may be given, and is written for old and new readers", async () => {
  const handler = httpGateway({ blockstore: await storeWith(HELLO) });
  const response = await ask(
    handler,
    `/ipfs/${HELLO_CID}?format=raw&filename=${encodeURIComponent('té"st.bin')}`,
  );
  assertEquals(
    response.headers.get("content-disposition"),
    `attachment; filename="t__st.bin"; filename*=UTF-8''t%C3%A9%22st.bin`,
  );
  await response.body?.cancel();
});

Deno.test("the probe path answers", async () => {
  const handler = httpGateway();
  for (const method of ["GET", "HEAD"]) {
    const response = await ask(handler, "/ipfs/bafkqaaa?format=raw", {}, method);
    assertEquals([response.status, (await response.bytes()).length], [200, 0]);
  }
  const car = await readCar(await ask(handler, "/ipfs/bafkqaaa?format=car"));
  assertEquals(car, { roots: ["bafkqaaa"], cids: [] });
});

/** A directory with a file of several levels, a small one, and a sharded directory. */
async function tree(
  store: Blockstore,
): Promise<{ root: CID; dir: CID; file: CID; small: CID; many: CID; bytes: Uint8Array }> {
  const { importer } = await import("ipfs-unixfs-importer");
  const { fixedSize } = await import("ipfs-unixfs-importer/chunker");
  const { balanced } = await import("ipfs-unixfs-importer/layout");
  const bytes = testBlocks(1, 10_000)[0]!;
  const entries = new Map<string, CID>();
  const source = [
    { path: "root/dir/file.bin", content: bytes },
    { path: "root/dir/small é.txt", content: utf8("small") },
    { path: "root/again.bin", content: bytes },
    ...Array.from({ length: 40 }, (_, i) => ({ path: `root/many/entry ${i}`, content: utf8(`entry ${i}`) })),
  ];
  for await (
    const { path, cid } of importer(source, store, {
      chunker: fixedSize({ chunkSize: 1000 }),
      layout: balanced({ maxChildrenPerNode: 4 }),
      shardSplitThresholdBytes: 1000,
    })
  ) entries.set(path!, cid);
  const get = (path: string): CID => entries.get(path)!;
  return {
    root: get("root"),
    dir: get("root/dir"),
    file: get("root/dir/file.bin"),
    small: get("root/dir/small é.txt"),
    many: get("root/many"),
    bytes,
  };
}

Deno.test("a CAR holds the whole DAG, depth first, each block once or as often as it occurs", async () => {
  const store = new VerifiedBlockstore();
  const { root, dir, file } = await tree(store);
  const handler = httpGateway({ blockstore: store });
  const response = await ask(handler, `/ipfs/${root}?format=car`);
  assertEquals(response.headers.get("content-type"), `${CAR_MEDIA_TYPE}; version=1; order=dfs; dups=n`);
  assertEquals(response.headers.get("accept-ranges"), "none");
  assert(response.headers.get("etag")!.startsWith(`W/"${root}.car.all.`));
  const all = await readCar(response);
  assertEquals(all.roots, [root.toString()]);
  assertEquals(all.cids[0], root.toString());
  const stored = (await Array.fromAsync(store.getAll())).map(({ cid }) => multihashHex(cid));
  assertEquals(all.cids.map((cid) => multihashHex(parseCid(cid))).sort(), stored.sort());

  const twice = await carCids(
    await ask(handler, `/ipfs/${root}`, { accept: `${CAR_MEDIA_TYPE}; dups=y; order=dfs` }),
  );
  assertEquals(twice.filter((cid) => cid === file.toString()).length, 2);
  assertEquals([...new Set(twice)], all.cids);

  const block = await readCar(await ask(handler, `/ipfs/${root}?format=car&dag-scope=block`));
  assertEquals(block.cids, [root.toString()]);
  const entity = await readCar(await ask(handler, `/ipfs/${dir}?format=car&dag-scope=entity`));
  assertEquals(entity.cids, [dir.toString()]);
});

Deno.test("a CAR under a path holds the blocks on the way, through shards too", async () => {
  const store = new VerifiedBlockstore();
  const { root, dir, file, small, many } = await tree(store);
  const handler = httpGateway({ blockstore: store });
  const one = await ask(handler, `/ipfs/${root}/dir/${encodeURIComponent("small é.txt")}?format=car`);
  assertEquals(one.headers.get("x-ipfs-roots"), [root, dir, small].join(","));
  assertEquals((await readCar(one)).cids, [root, dir, small].map(String));
  const two = await readCar(await ask(handler, `/ipfs/${root}/dir/file.bin?format=car&dag-scope=block`));
  assertEquals(two.cids, [root, dir, file].map(String));
  const entry = cidOf(utf8("entry 17")).toString();
  const sharded = await ask(handler, `/ipfs/${root}/many/entry%2017?format=car`);
  // One for each segment, though there are more blocks on the way.
  assertEquals(sharded.headers.get("x-ipfs-roots"), [root, many, entry].join(","));
  const three = await readCar(sharded);
  assert(three.cids.length > 3);
  assertEquals([three.cids[0], three.cids.at(-1)], [root.toString(), entry]);
  // All of the shard's own blocks, and none of its entries.
  const shard = await readCar(await ask(handler, `/ipfs/${root}/many?format=car&dag-scope=entity`));
  assert(shard.cids.length > 2 && !shard.cids.includes(entry));
  assertEquals((await ask(handler, `/ipfs/${root}/many/entry%2099?format=car`)).status, 404);
});

Deno.test("entity-bytes gives the blocks of the range and no others", async () => {
  const store = new VerifiedBlockstore();
  const { file, bytes, dir } = await tree(store);
  const handler = httpGateway({ blockstore: store });
  const leaf = (i: number): string => cidOf(bytes.subarray(1000 * i, 1000 * i + 1000)).toString();
  const leaves = async (range: string): Promise<string[]> => {
    const car = await readCar(await ask(handler, `/ipfs/${file}?format=car&entity-bytes=${range}`));
    assertEquals(car.cids[0], file.toString());
    return car.cids.filter((cid) => parseCid(cid).code === 0x55);
  };
  assertEquals(await leaves("0:*"), Array.from({ length: 10 }, (_, i) => leaf(i)));
  assertEquals(await leaves("0:999"), [leaf(0)]);
  assertEquals(await leaves("0:1000"), [leaf(0), leaf(1)]);
  assertEquals(await leaves("2500:3500"), [leaf(2), leaf(3)]);
  assertEquals(await leaves("-1:*"), [leaf(9)]);
  assertEquals(await leaves("-1500:-1001"), [leaf(8)]);
  assertEquals(await leaves("9000:20000"), [leaf(9)]);
  assertEquals(await leaves("-20000:5"), [leaf(0)]);
  assertEquals(await leaves("5:4"), []);
  assertEquals(await leaves("-20000:-10000"), [leaf(0)]);
  for (const outside of ["10000:*", "-20000:-10001"]) {
    const response = await ask(handler, `/ipfs/${file}?format=car&entity-bytes=${outside}`);
    assertEquals([response.status, await response.text()], [
      400,
      "entity-bytes lies outside of the entity\n",
    ]);
  }
  // What is no file ignores the range.
  assertEquals((await readCar(await ask(handler, `/ipfs/${dir}?format=car&entity-bytes=5:6`))).cids, [
    dir.toString(),
  ]);
  const tags = new Set<string>();
  for (
    const query of ["", "&dag-scope=block", "&dag-scope=entity", "&entity-bytes=0:5", "&entity-bytes=0:6"]
  ) {
    tags.add((await ask(handler, `/ipfs/${file}?format=car${query}`, {}, "HEAD")).headers.get("etag")!);
  }
  assertEquals(tags.size, 5);
});

Deno.test("a CAR walks dag-cbor, and breaks off where a block is missing", async () => {
  const store = await storeWith(HELLO);
  const { encode } = await import("cborg");
  const { Token, Type } = await import("cborg");
  const link = (cid: CID): { cid: CID } => ({ cid });
  const bytes = encode({ a: link(HELLO_CID) }, {
    typeEncoders: {
      Object: (value: unknown) =>
        typeof value === "object" && value !== null && "cid" in value && value.cid instanceof MultiformatsCid
          ? [new Token(Type.tag, 42), new Token(Type.bytes, new Uint8Array([0, ...value.cid.bytes]))]
          : null,
    },
  });
  const cbor = cidOf(bytes, 0x71);
  await store.put(cbor, bytes);
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  assertEquals(
    (await readCar(await ask(handler, `/ipfs/${cbor}?format=car`))).cids,
    [cbor, HELLO_CID].map(String),
  );
  await store.delete(HELLO_CID);
  const response = await ask(handler, `/ipfs/${cbor}?format=car`);
  assertEquals(response.status, 200);
  await assertRejects(() => response.bytes());
  assertEquals(errors.length, 1);
});

Deno.test("e-36 a reader that leaves a CAR stops the reading of the store; nothing is read ahead of it", async () => {
  let reads = 0;
  class Counting extends MemoryBlockstore {
    override *get(cid: CID): Generator<Uint8Array> {
      reads++;
      yield* super.get(cid);
    }
  }
  const store = new VerifiedBlockstore(new Counting());
  const { cid } = await addFile(store, testBlocks(1, 1_000_000)[0]!, { chunkSize: 1000 });
  reads = 0;
  const handler = httpGateway({ blockstore: store });
  const response = await ask(handler, `/ipfs/${cid}?format=car`);
  const reader = response.body!.getReader();
  for (let i = 0; i < 10; i++) await reader.read();
  assert(reads < 12, `${reads}`);
  await reader.cancel();
  const before = reads;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert(reads <= before + 2);
});

Deno.test("a DAG that shares its parts over and over costs a CAR no more than its blocks", async () => {
  const { encode, prepare } = await import("@ipld/dag-pb");
  const store = await storeWith(HELLO);
  let cid: CID = HELLO_CID;
  for (let level = 0; level < 40; level++) {
    const block = encode(prepare({ Links: [{ Hash: cid, Name: "a" }, { Hash: cid, Name: "b" }] }));
    cid = await store.add(block, { codec: 0x70 });
  }
  const car = await readCar(await ask(httpGateway({ blockstore: store }), `/ipfs/${cid}?format=car`));
  assertEquals(car.cids.length, 41);
});

/** A file node over parts of these sizes. */
async function fileNode(store: VerifiedBlockstore, parts: readonly [cid: CID, size: number][]): Promise<CID> {
  const data = new BinaryWriter().tag(1, WireType.Varint).int32(2);
  for (const [, size] of parts) data.tag(4, WireType.Varint).uint64(size);
  const Links = parts.map(([Hash]) => ({ Hash, Name: "", Tsize: 1 }));
  return await store.add(encodeNode({ Data: data.finish(), Links }), { codec: DAG_PB_CODEC });
}

/** A file of 2^`levels` times `leaf`, each level two links to the one below; its parts from the root down. */
async function doubledFile(store: VerifiedBlockstore, leaf: Uint8Array, levels: number): Promise<CID[]> {
  const parts = [await store.add(leaf)];
  for (let size = leaf.length; parts.length <= levels; size *= 2) {
    parts.unshift(await fileNode(store, [[parts[0]!, size], [parts[0]!, size]]));
  }
  return parts;
}

Deno.test("a file that shares its parts over and over costs a CAR of the entity no more than its blocks", async () => {
  const store = new VerifiedBlockstore();
  const parts = await doubledFile(store, HELLO, 40);
  const handler = httpGateway({ blockstore: store });
  const car = await readCar(await ask(handler, `/ipfs/${parts[0]}?format=car&dag-scope=entity`));
  assertEquals(car.cids, parts.map(String));
  // Without the first and the last byte: two ways down, each through its own part of the same blocks.
  const ends = await readCar(await ask(handler, `/ipfs/${parts[0]}?format=car&entity-bytes=1:-2`));
  assertEquals(ends.cids, parts.map(String));
});

Deno.test("a part that occurs twice is walked again where the range takes more of it", async () => {
  const store = new VerifiedBlockstore();
  const [a, b] = [await store.add(utf8("aaaa")), await store.add(utf8("bbbb"))];
  const half = await fileNode(store, [[a, 4], [b, 4]]);
  const root = await fileNode(store, [[half, 8], [half, 8]]);
  const handler = httpGateway({ blockstore: store });
  // Of the first half only b lies in the range, of the second all.
  const car = await readCar(await ask(handler, `/ipfs/${root}?format=car&entity-bytes=5:*`));
  assertEquals(car.cids, [root, half, b, a].map(String));
});

Deno.test("a CAR with duplicates has each part as often as it occurs", async () => {
  const store = new VerifiedBlockstore();
  const [root] = await doubledFile(store, HELLO, 4);
  const response = await ask(
    httpGateway({ blockstore: store }),
    `/ipfs/${root}?format=car&dag-scope=entity&car-dups=y`,
  );
  assertEquals((await carCids(response)).length, 31);
});

Deno.test("a reader that leaves while nothing of a CAR can be sent ends the walk", async () => {
  const store = new VerifiedBlockstore();
  // Identity blocks stand in no CAR: the walk has nothing to send, and nothing to wait for, before the last block.
  const seven: [CID, number] = [identityCid(new Uint8Array([7])), 1];
  const eight = await store.getBytes(await fileNode(store, Array(8).fill(seven)));
  const wide = await fileNode(store, Array(5000).fill([identityCid(eight, DAG_PB_CODEC), 8]));
  const root = await fileNode(store, [[wide, 40_000], [await store.add(HELLO), 5]]);
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  const path = `/ipfs/${root}?format=car&dag-scope=entity&car-dups=y`;
  let start = performance.now();
  assertEquals(await carCids(await ask(handler, path)), [root, wide, cidOf(HELLO)].map(String));
  const whole = performance.now() - start;

  const reader = (await ask(handler, path)).body!.getReader();
  for (let length = 0; length < 5000 * eight.length;) length += (await reader.read()).value!.length;
  const { promise: left, resolve: leave } = Promise.withResolvers<void>();
  setTimeout(() => {
    start = performance.now();
    leave(reader.cancel());
  });
  // The timer had its turn before the walk was at its end.
  assertEquals((await reader.read()).done, true);
  await left;
  const leaving = performance.now() - start;
  assert(leaving < whole / 2, `${leaving} of ${whole} ms`);
  assertEquals(errors, []);
});

Deno.test("an identity CID is answered from itself up to 128 bytes, and is 400 above", async () => {
  const inner = new MemoryBlockstore();
  const store = new VerifiedBlockstore(inner);
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  const longest = identityCid(new Uint8Array(128).fill(7));
  const tooLong = identityCid(new Uint8Array(129).fill(7));
  const raw = await ask(handler, `/ipfs/${longest}?format=raw`);
  assertEquals([raw.status, await raw.bytes()], [200, new Uint8Array(128).fill(7)]);
  assertEquals(await readCar(await ask(handler, `/ipfs/${longest}?format=car`)), {
    roots: [longest.toString()],
    cids: [],
  });
  for (const query of ["raw", "car", "car&dag-scope=entity", "car&dag-scope=block"]) {
    for (const method of ["GET", "HEAD"]) {
      const response = await ask(handler, `/ipfs/${tooLong}?format=${query}`, {}, method);
      const text = "Cannot take the block of a CID: its identity digest is 129 bytes, limit is 128\n";
      assertEquals([response.status, await response.text()], [400, method === "GET" ? text : ""]);
    }
  }
  assertEquals([inner.size, errors], [0, []]);
  const { root, leaf } = await holding(longest);
  assertEquals(
    (await readCar(await ask(handler, `/ipfs/${root}?format=car`))).cids,
    [root, leaf].map(String),
  );
  const entity = await ask(handler, `/ipfs/${root}/file?format=car&dag-scope=entity`);
  assertEquals((await readCar(entity)).cids, [root, leaf].map(String));
  const long = await holding(tooLong);
  const broken = await ask(handler, `/ipfs/${long.root}?format=car`);
  assertEquals(broken.status, 200);
  await assertRejects(() => broken.bytes());
  assertEquals(errors.map((error) => error instanceof HtxError && error.code), ["LIMIT_EXCEEDED"]);

  /** A directory with a file that has the CID for its only part. */
  async function holding(cid: CID): Promise<{ root: CID; leaf: CID }> {
    const leaf = await fileNode(store, [[cid, cid.multihash.digest.length]]);
    const Links = [{ Hash: leaf, Name: "file", Tsize: 1 }];
    const root = await store.add(encodeNode({ Data: new Uint8Array([8, 1]), Links }), {
      codec: DAG_PB_CODEC,
    });
    return { root, leaf };
  }
});

Deno.test("a CAR of a DAG whose root cannot be walked is 400, and its block alone is there all the same", async () => {
  const store = new VerifiedBlockstore();
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  // No dag-pb, a link in dag-pb to no CID, no dag-cbor, and DAG-JSON, which is not known here.
  const blocks: [block: Uint8Array, codec: number][] = [
    [utf8("hello"), DAG_PB_CODEC],
    [new Uint8Array([0x12, 0x04, 0x0a, 0x02, 0xff, 0xff]), DAG_PB_CODEC],
    [utf8("hello"), 0x71],
    [utf8("{}"), 0x0129],
  ];
  for (const [block, codec] of blocks) {
    const cid = await store.add(block, { codec });
    for (const name of [cid, identityCid(block, codec)]) {
      for (const method of ["GET", "HEAD"]) {
        const response = await ask(handler, `/ipfs/${name}?format=car`, {}, method);
        const text = await response.text();
        assertEquals([response.status, response.headers.get("cache-control")], [400, "no-store"], text);
        if (method === "GET") assert(text.startsWith(`Cannot walk ${name}: `), text);
      }
    }
    // What is no UnixFS is an entity of one block.
    for (const scope of ["block", "entity"]) {
      const car = await readCar(await ask(handler, `/ipfs/${cid}?format=car&dag-scope=${scope}`));
      assertEquals(car.cids, [cid.toString()]);
    }
    assertEquals(await (await ask(handler, `/ipfs/${cid}?format=raw`)).bytes(), block);
  }
  assertEquals(errors, []);
});

Deno.test("a CAR breaks off below a root that can be walked, and has sent by then what comes before", async () => {
  const store = await storeWith(HELLO);
  const bad = await store.add(utf8("no dag-pb"), { codec: DAG_PB_CODEC });
  const Links = [{ Hash: HELLO_CID, Name: "a", Tsize: 5 }, { Hash: bad, Name: "b", Tsize: 9 }];
  const root = await store.add(encodeNode({ Links }), { codec: DAG_PB_CODEC });
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  const response = await ask(handler, `/ipfs/${root}?format=car`);
  assertEquals(response.status, 200);
  let sent = "";
  await assertRejects(async () => {
    for await (const piece of response.body!) sent += new TextDecoder().decode(piece);
  });
  assert(sent.includes("hello") && sent.includes("no dag-pb"), sent);
  assertEquals(errors.map((error) => error instanceof HtxError && error.code), ["MALFORMED"]);
});

Deno.test("a CAR of more blocks than the gateway remembers breaks off, and one of as many does not", async () => {
  const store = new VerifiedBlockstore();
  const parts = await doubledFile(store, HELLO, 4);
  const [root] = parts;
  for (const query of ["", "&dag-scope=entity"]) {
    const enough = httpGateway({ blockstore: store, maxCarBlocks: 5 });
    assertEquals((await readCar(await ask(enough, `/ipfs/${root}?format=car${query}`))).cids.length, 5);
    const errors: unknown[] = [];
    const short = httpGateway({
      blockstore: store,
      maxCarBlocks: 4,
      onError: (error) => errors.push(error),
    });
    const response = await ask(short, `/ipfs/${root}?format=car${query}`);
    await assertRejects(() => response.bytes());
    assertEquals(errors.map((error) => error instanceof HtxError && error.code), ["LIMIT_EXCEEDED"]);
  }
  assertThrows(() => httpGateway({ maxCarBlocks: 0 }), RangeError);
});

Deno.test("a CAR breaks off where more links wait than the gateway remembers, or 262144, and one with as many does not", async () => {
  const store = new VerifiedBlockstore();
  const one = identityCid(utf8("b"));
  const over = async (below: CID, size: number, waiting: number): Promise<CID> =>
    await fileNode(store, [[below, size], ...Array.from({ length: waiting }, (): [CID, number] => [one, 1])]);
  let [way, size] = [await store.add(HELLO), HELLO.length];
  for (let level = 0; level < 3; level++) {
    way = await over(way, size, 65_536);
    size += 65_536;
  }
  const [fits, deeper] = [await over(way, size, 65_535), await over(way, size, 65_536)];
  for (const query of ["", "&dag-scope=entity"]) {
    const errors: unknown[] = [];
    const handler = httpGateway({
      blockstore: store,
      maxCarBlocks: 10,
      onError: (error) => errors.push(error),
    });
    const { cids } = await readCar(await ask(handler, `/ipfs/${fits}?format=car${query}`));
    assertEquals(cids.length, 5);
    const response = await ask(handler, `/ipfs/${deeper}?format=car${query}`);
    await assertRejects(() => response.bytes());
    assertEquals(errors.map((error) => error instanceof HtxError && error.code), ["LIMIT_EXCEEDED"]);
  }
  const more = httpGateway({ blockstore: store, maxCarBlocks: 262_145 });
  assertEquals((await readCar(await ask(more, `/ipfs/${deeper}?format=car`))).cids.length, 5);
});

Deno.test("a CAR's links that wait keep their CIDs, and not the blocks that they stand in", async () => {
  const kept = new Set<number>();
  const inner = new MemoryBlockstore();
  const store = new VerifiedBlockstore(memoryWith(inner, (cid) => {
    kept.add(cid.multihash.bytes.buffer.byteLength);
    return inner.get(cid);
  }));
  const parts: [CID, number][] = [];
  for (const block of testBlocks(100, 10)) parts.push([await store.add(block), 10]);
  const root = await fileNode(store, parts);
  for (const query of ["", "&dag-scope=entity"]) {
    const car = await readCar(
      await ask(httpGateway({ blockstore: store }), `/ipfs/${root}?format=car${query}`),
    );
    assertEquals(car.cids.length, 101);
  }
  assertEquals(kept, new Set([root.bytes.length]));
});

Deno.test("HEAD says the length that GET has, or none where it is not known", async () => {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    httpGateway({ blockstore: await storeWith(HELLO) }),
  );
  const url = `http://127.0.0.1:${server.addr.port}/ipfs`;
  const cases: [string, number, string | null][] = [
    [`/${HELLO_CID}?format=raw`, 200, "5"],
    [`/${HELLO_CID}?format=car`, 200, null],
    [`/${cidOf(utf8("absent"))}?format=car`, 404, "17"],
    [`/${HELLO_CID}?format=tar`, 406, "21"],
  ];
  for (const [path, status, length] of cases) {
    for (const method of ["HEAD", "GET"]) {
      const response = await fetch(url + path, { method });
      const body = await response.text();
      assertEquals([response.status, response.headers.get("content-length")], [status, length], path);
      if (method === "HEAD") assertEquals(body, "");
      else if (length !== null) assertEquals(`${body.length}`, length);
    }
  }
});

Deno.test("cid=multihash gives the bare multihash of a raw block and the CID of a root, both good to fetch", async () => {
  const store = new VerifiedBlockstore();
  const handler = httpGateway({ blockstore: store, writable: true });
  const body = testBlocks(1, (1 << 20) + 1)[0]! as Uint8Array<ArrayBuffer>;
  for (const [length, isBare] of [[1 << 20, true], [(1 << 20) + 1, false]] as const) {
    const request = new Request("http://cas/?cid=multihash", {
      method: "PUT",
      body: body.subarray(0, length),
    });
    const name = await (await handler(request)).text();
    assertEquals(/^1220[0-9a-f]{64}$/.test(name), isBare);
    const car = await readCar(await ask(handler, `/ipfs/${name}?format=car`));
    assertEquals(car.cids.length, isBare ? 1 : 3);
    assertEquals(joinBlock(await Array.fromAsync(catFile(store, parseCid(name)))), body.subarray(0, length));
  }
});

Deno.test("PUT stores under any name, as curl -T asks for, and under no path", async () => {
  const handler = httpGateway({ writable: true });
  const put = async (path: string, method = "PUT"): Promise<[number, string]> => {
    const response = await handler(new Request(`http://cas${path}`, { method, body: HELLO }));
    return [response.status, await response.text()];
  };
  assertEquals(await put("/LICENSE"), [201, HELLO_CID.toString()]);
  assertEquals(await put("/a%2Fb.txt?cid=multihash"), [201, multihashHex(HELLO_CID)]);
  assertEquals((await put("/a/b.txt"))[0], 404);
  assertEquals((await put("/LICENSE", "POST"))[0], 404);
  assertEquals((await ask(handler, "/LICENSE")).status, 404);
  const readOnly = await httpGateway()(new Request("http://cas/LICENSE", { method: "PUT", body: HELLO }));
  assertEquals(readOnly.status, 404);
});

Deno.test("PUT and POST store the body and answer with its CID", async () => {
  const stored: [string, number][] = [];
  const store = new VerifiedBlockstore();
  const handler = httpGateway({
    blockstore: store,
    writable: true,
    onStored: (cid, size) => stored.push([cid.toString(), size]),
  });
  for (const method of ["PUT", "POST"]) {
    const response = await handler(new Request("http://cas/", { method, body: HELLO }));
    assertEquals([response.status, response.headers.get("location")], [201, `/ipfs/${HELLO_CID}`]);
    assertEquals(await response.text(), HELLO_CID.toString());
  }
  assertEquals(stored, Array(2).fill([HELLO_CID.toString(), 5]));
  const hex = await handler(new Request("http://cas/?cid=multihash", { method: "PUT", body: HELLO }));
  assertEquals(await hex.text(), multihashHex(HELLO_CID));
  const empty = await handler(new Request("http://cas/", { method: "PUT" }));
  assertEquals(await empty.text(), cidOf(new Uint8Array()).toString());
  const mebibyte = testBlocks(1, 1 << 20)[0]! as Uint8Array<ArrayBuffer>;
  const whole = await handler(new Request("http://cas/", { method: "PUT", body: mebibyte }));
  assertEquals(await whole.text(), cidOf(mebibyte).toString());
  const large = await handler(
    new Request("http://cas/", { method: "PUT", body: new Blob([mebibyte, mebibyte]) }),
  );
  const root = parseCid(await large.text());
  assertEquals(root.code, 0x70);
  assertEquals((await readCar(await ask(handler, `/ipfs/${root}?format=car`))).cids.length, 2);
  const bad = await handler(new Request("http://cas/?cid=sha1", { method: "PUT", body: HELLO }));
  assertEquals(bad.status, 400);
  await bad.body?.cancel();
});

Deno.test("an upload that is too long, or does not fit, stores no root and says why", async () => {
  const handler = httpGateway({ writable: true, maxBodyBytes: 10 });
  const put = (body: BodyInit, headers: Record<string, string> = {}): Promise<Response> =>
    handler(new Request("http://cas/", { method: "PUT", body, headers }));
  assertEquals((await put("0123456789")).status, 201);
  assertEquals((await put("0123456789x")).status, 413);
  assertEquals((await put("x", { "content-length": "11" })).status, 413);
  const full = httpGateway({ writable: true, blockstore: new MemoryBlockstore({ maxBytes: 4 }) });
  assertEquals((await full(new Request("http://cas/", { method: "PUT", body: "hello" }))).status, 507);
});

Deno.test("e-35 a block that went bad is 404, never served; a store that fails is 500, and reported", async () => {
  const inner = new MemoryBlockstore();
  const store = new VerifiedBlockstore(inner);
  const handler = httpGateway({ blockstore: store });
  await store.add(HELLO);
  void inner.put(HELLO_CID, utf8("wrong"));
  assertEquals((await ask(handler, `/ipfs/${HELLO_CID}?format=raw`)).status, 404);
  const errors: unknown[] = [];
  const failing = httpGateway({
    blockstore: failingStore(new Error("disk on fire")),
    onError: (error) => errors.push(error),
  });
  const response = await ask(failing, `/ipfs/${HELLO_CID}?format=raw`);
  assertEquals([response.status, await response.text()], [500, "the store failed\n"]);
  assertEquals(errors.map((error) => (error as Error).message), ["disk on fire"]);
});

Deno.test("a block that the store fails to read is 500, and no store that is full", async () => {
  const handler = httpGateway({
    blockstore: failingStore(new HtxError("STORE_FAILED", "Cannot read block")),
  });
  assertEquals((await ask(handler, `/ipfs/${HELLO_CID}?format=raw`)).status, 500);
});

Deno.test("a body that breaks off is the client's failure", async () => {
  const errors: unknown[] = [];
  const handler = httpGateway({ writable: true, onError: (error) => errors.push(error) });
  const body = new ReadableStream({
    pull: (controller) => controller.error(new TypeError("connection closed")),
  });
  const response = await handler(new Request("http://cas/", { method: "PUT", body }));
  assertEquals([response.status, await response.text()], [400, "the body broke off\n"]);
  assertEquals(errors, []);
});

Deno.test("hooks that throw change no answer", async () => {
  const thrown = new Error("mine");
  const errors: unknown[] = [];
  const storing = httpGateway({
    writable: true,
    onStored(): never {
      throw thrown;
    },
    onError: (error) => errors.push(error),
  });
  assertEquals((await storing(new Request("http://cas/", { method: "PUT", body: HELLO }))).status, 201);
  assertEquals(errors, [thrown]);
  const failing = httpGateway({
    blockstore: failingStore(new Error("disk on fire")),
    onError(): never {
      throw thrown;
    },
  });
  assertEquals((await ask(failing, `/ipfs/${HELLO_CID}?format=raw`)).status, 500);
});

Deno.test("a CAR has what is under a node that is linked to as a raw block before", async () => {
  const store = await storeWith(HELLO);
  const node = encodeNode({ Links: [{ Hash: HELLO_CID, Name: "hello", Tsize: 5 }] });
  const asNode = await store.add(node, { codec: DAG_PB_CODEC });
  const asRaw = cidOf(node);
  const root = await store.add(
    encodeNode({ Links: [{ Hash: asRaw, Name: "a", Tsize: 1 }, { Hash: asNode, Name: "b", Tsize: 1 }] }),
    { codec: DAG_PB_CODEC },
  );
  const car = await readCar(
    await ask(httpGateway({ blockstore: store }), `/ipfs/${root}?format=car&car-dups=n`),
  );
  assertEquals(car.cids, [root, asRaw, asNode, HELLO_CID].map(String));
});

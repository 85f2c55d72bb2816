import { assert, assertEquals, assertRejects } from "@std/assert";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { encode } from "@ipld/dag-pb";
import fc from "fast-check";
import { identityCid, testBlocks } from "./_testing.ts";
import { nameHash, namesOf, walkPath } from "./_path.ts";
import { BlockNotFoundError, VerifiedBlockstore } from "./blockstore.ts";
import { type CID, cidOf, DAG_PB_CODEC } from "./cid.ts";
import { addFile, catFile, statFile } from "./files.ts";
import { httpGateway } from "./http.ts";
import { concat, fromHex, HtxError, utf8 } from "./_core.ts";

const LEAF = identityCid(utf8("leaf"));

async function way(store: VerifiedBlockstore, root: CID, path: string): Promise<CID[]> {
  return await Array.fromAsync(walkPath(root, namesOf(path), (cid) => store.getBytes(cid)));
}

/** A node of UnixFS with named links. */
async function node(
  store: VerifiedBlockstore,
  { type, fanout, data = new Uint8Array() }: { type: number; fanout?: bigint; data?: Uint8Array },
  links: Record<string, CID>,
): Promise<CID> {
  const writer = new BinaryWriter().tag(1, WireType.Varint).int32(type);
  writer.tag(2, WireType.LengthDelimited).bytes(data);
  if (fanout !== undefined) {
    writer.tag(5, WireType.Varint).uint64(0x22n).tag(6, WireType.Varint).uint64(fanout);
  }
  const Links = Object.entries(links).map(([Name, Hash]) => ({ Name, Hash, Tsize: 1 }));
  Links.sort((a, b) => a.Name < b.Name ? -1 : 1);
  return await store.add(encode({ Data: writer.finish(), Links }), { codec: DAG_PB_CODEC });
}
const FILE = 2;
const DIRECTORY = 1;
const SYMLINK = 4;
const SHARD = 5;

Deno.test("nameHash() gives the published hashes of murmur3", async () => {
  // https://github.com/spaolacci/murmur3, murmur_test.go, BSD-3-Clause.
  const rows: [string, bigint][] = [
    ["", 0n],
    ["hello", 0xcbd8a7b341bd9b02n],
    ["hello, world", 0x342fac623a5ebc8en],
    ["19 Jan 2038 at 3:14:07 AM", 0xb89e5988b737affcn],
    ["The quick brown fox jumps over the lazy dog.", 0xcd99481f9ee902c9n],
  ];
  for (const [text, hash] of rows) assertEquals(await nameHash(text), hash, text);
});

Deno.test("every name of a sharded directory that the importer wrote is found, and no other", async () => {
  const { importer } = await import("ipfs-unixfs-importer");
  const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }).filter((text) =>
    !text.includes("/") && text !== "." && text !== ".."
  );
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(name, { minLength: 1, maxLength: 300, size: "max" }),
      name,
      fc.constantFrom(3, 4, 8, 10),
      async (names, other, shardFanoutBits) => {
        const store = new VerifiedBlockstore();
        const source = names.map((name) => ({ path: name, content: utf8(name) }));
        let root: CID | undefined;
        for await (
          const { cid } of importer(source, store, {
            wrapWithDirectory: true,
            shardSplitThresholdBytes: 0,
            shardFanoutBits,
          })
        ) root = cid;
        assert(root);
        for (const name of names) assertEquals(await way(store, root, name), [root, cidOf(utf8(name))]);
        if (!names.includes(other)) await assertRejects(() => way(store, root!, other), BlockNotFoundError);
      },
    ),
    { numRuns: 20 },
  );
});

Deno.test("a shard of a width that nobody writes leads nowhere, at once", async () => {
  const store = new VerifiedBlockstore();
  for (const fanout of [0n, 1n, 2n, 3n, 24n, 2048n, 1n << 31n, (1n << 53n) - 1n]) {
    const digits = (Number(fanout) - 1).toString(16).length;
    const links = Object.fromEntries(
      ["a", "b"].map((name, i) => [`${i}`.padStart(digits, "0") + name, LEAF]),
    );
    const root = await node(store, { type: SHARD, fanout }, links);
    for (const name of ["a", "c"]) {
      await assertRejects(() => way(store, root, name), BlockNotFoundError, `there is no ${name} under it`);
    }
    const response = await httpGateway({ blockstore: store })(
      new Request(`http://cas/ipfs/${root}/c?format=car`),
    );
    assertEquals(response.status, 404);
  }
});

Deno.test("shards lead no deeper than the bits of a name's hash", async () => {
  for (const [levels, isFound] of [[20, true], [21, false]] as const) {
    const store = new VerifiedBlockstore();
    const hash = await nameHash("a");
    const place = (level: number): string => ((hash >> BigInt(61 - 3 * level)) & 7n).toString();
    let root = levels === 20
      ? await node(store, { type: SHARD, fanout: 8n }, { [`${place(20)}a`]: LEAF })
      : await node(
        store,
        { type: SHARD, fanout: 8n },
        Object.fromEntries([..."01234567"].map((at) => [`${at}a`, LEAF])),
      );
    for (let level = levels; level-- > 0;) {
      root = await node(store, { type: SHARD, fanout: 8n }, { [place(level)]: root });
    }
    if (isFound) assertEquals(await way(store, root, "a"), [root, LEAF]);
    else await assertRejects(() => way(store, root, "a"), BlockNotFoundError);
  }
});

Deno.test("there is nothing under what is no directory", async () => {
  const store = new VerifiedBlockstore();
  const long = await addFile(store, testBlocks(1, 1000)[0]!, { chunkSize: 100 });
  const short = await addFile(store, testBlocks(1, 10)[0]!, { profile: "unixfs-v0-2015" });
  const leaves = {
    long: long.cid,
    short: short.cid,
    raw: await store.add(utf8("raw")),
    wrapped: await node(store, { type: 0, data: utf8("b") }, {}),
    file: await node(store, { type: FILE, data: utf8("a") }, {}),
    symlink: await node(store, { type: SYMLINK, data: utf8("a") }, {}),
    junk: await store.add(utf8("junk"), { codec: DAG_PB_CODEC }),
    plain: await store.add(encode({ Links: [{ Name: "x", Hash: LEAF }] }), { codec: DAG_PB_CODEC }),
    foreign: await store.add(utf8("foreign"), { codec: 0x300539 }),
  };
  const root = await node(store, { type: DIRECTORY }, leaves);
  const handler = httpGateway({ blockstore: store });
  for (const [name, cid] of Object.entries(leaves)) {
    assertEquals(await way(store, root, `/${name}//`), [root, cid]);
    for (const path of ["x", "x/y"]) {
      await assertRejects(() => way(store, cid, path), BlockNotFoundError);
      await assertRejects(() => statFile(store, root, { path: `${name}/${path}` }), BlockNotFoundError);
      await assertRejects(() => catFile(store, cid, { path }).next(), BlockNotFoundError);
      const url = `http://cas/ipfs/${root}/${name}/${path}?format=car`;
      assertEquals((await handler(new Request(url))).status, 404, name);
    }
  }
});

Deno.test("the CIDs of a way hold none of its blocks", async () => {
  const store = new VerifiedBlockstore();
  const leaf = await store.add(utf8("leaf"));
  const shard = await node(store, { type: SHARD, fanout: 8n }, {
    [`${await nameHash("b") >> 61n}b`]: leaf,
  });
  const root = await node(store, { type: DIRECTORY }, { a: shard });
  const cids = await way(store, root, "a/b");
  assertEquals(cids, [root, shard, leaf]);
  assertEquals(cids.map(({ multihash }) => multihash.digest.buffer.byteLength <= 36), [true, true, true]);
});

Deno.test("a name that ends with a backslash is a name like any other", async () => {
  const store = new VerifiedBlockstore();
  const root = await node(store, { type: DIRECTORY }, {
    "a\\": await node(store, { type: DIRECTORY }, { b: LEAF }),
  });
  assertEquals((await way(store, root, "a\\/b")).at(-1), LEAF);
});

Deno.test("a path goes through dag-cbor, as far as it has the keys", async () => {
  const store = new VerifiedBlockstore();
  const directory = await node(store, { type: DIRECTORY }, { b: LEAF });
  // { "to": { "dir": 42(h'00' ‖ CID) }, "text": "x" }
  const block = concat(fromHex("a262746fa163646972d82a582500"), directory.bytes, fromHex("64746578746178"));
  const root = await store.add(block, { codec: 0x71 });
  assertEquals(await way(store, root, "to/dir/b"), [root, directory, LEAF]);
  assertEquals(await way(store, root, "to/dir"), [root, directory]);
  assertEquals(await way(store, root, "text"), [root]);
  for (const path of ["no", "to/no", "to/dir/no", "text/no", "to/dir/b/no"]) {
    await assertRejects(() => way(store, root, path), BlockNotFoundError, `there is no ${path} under it`);
  }
});

Deno.test("a block of the way that cannot be read is no path that is not there", async () => {
  const root = cidOf(utf8("root"), DAG_PB_CODEC);
  for (const codec of [DAG_PB_CODEC, 0x71]) {
    const failing = walkPath(cidOf(utf8("root"), codec), ["a"], () => Promise.reject(new Error("disk")));
    await failing.next();
    await assertRejects(() => failing.next(), Error, "disk");
  }
  const store = new VerifiedBlockstore();
  store.read = (): never => {
    throw new Error("disk");
  };
  const errors: unknown[] = [];
  const handler = httpGateway({ blockstore: store, onError: (error) => errors.push(error) });
  const response = await handler(new Request(`http://cas/ipfs/${root}/a?format=car`));
  assertEquals([response.status, errors.length], [500, 1]);
  assert(!(errors[0] instanceof HtxError));
});

/**
 * Helia's Bitswap as a peer, over js-libp2p on loopback. Its packages are where `HTX_BENCH_MODULES` says.
 *
 *     helia_blocks.ts server <phases>
 *     helia_blocks.ts client <phases: get1, get32, get256> <json of the server's READY line>
 *
 * @module
 */

import { createHash } from "node:crypto";
import { COUNT, fetchBlocks, makeBlock } from "./_blocks.ts";
import { phase, say } from "./_role.ts";

interface Helia {
  start(): Promise<void>;
  readonly libp2p: { getMultiaddrs(): { toString(): string }[]; dial(address: unknown): Promise<unknown> };
  readonly blockstore: {
    put(cid: unknown, bytes: Uint8Array): Promise<unknown>;
    get(cid: unknown): AsyncIterable<Uint8Array> | Promise<Uint8Array>;
  };
}
interface Modules {
  createHeliaLight(options: object): unknown;
  withLibp2pLight(helia: unknown, options: object): unknown;
  withBitswap(helia: unknown): Helia;
  tcp(): unknown;
  noise(): unknown;
  yamux(): unknown;
  identify(): unknown;
  multiaddr(text: string): unknown;
  MemoryBlockstore: new () => unknown;
  MemoryDatastore: new () => unknown;
  CID: { createV1(codec: number, digest: unknown): unknown };
  createDigest(code: number, digest: Uint8Array): unknown;
}

const modules: Modules = await import(Deno.env.get("HTX_BENCH_MODULES")!);
const RAW = 0x55;
const SHA_256 = 0x12;

async function createNode(listen: string[]): Promise<Helia> {
  const stores = { blockstore: new modules.MemoryBlockstore(), datastore: new modules.MemoryDatastore() };
  const helia = modules.withBitswap(modules.withLibp2pLight(modules.createHeliaLight(stores), {
    addresses: { listen },
    transports: [modules.tcp()],
    connectionEncrypters: [modules.noise()],
    streamMuxers: [modules.yamux()],
    services: { identify: modules.identify() },
    connectionMonitor: { enabled: false },
  }));
  await helia.start();
  return helia;
}

function cidOf(block: Uint8Array): unknown {
  const digest = new Uint8Array(createHash("sha256").update(block).digest());
  return modules.CID.createV1(RAW, modules.createDigest(SHA_256, digest));
}

const [role, phases = "", info = "{}"] = Deno.args;
const names = phases.split(",");
if (role === "server") {
  const helia = await createNode(["/ip4/127.0.0.1/tcp/0"]);
  for (let i = 0; i < COUNT * names.length; i++) {
    const block = makeBlock(i);
    await helia.blockstore.put(cidOf(block), block);
  }
  say("READY " + JSON.stringify({ address: helia.libp2p.getMultiaddrs()[0]!.toString() }));
} else {
  const cids = Array.from({ length: COUNT * names.length }, (_, i) => cidOf(makeBlock(i)));
  const helia = await createNode([]);
  await helia.libp2p.dial(modules.multiaddr(JSON.parse(info).address));
  await new Promise((resolve) => setTimeout(resolve, 500)); // until identify has told both that they speak Bitswap
  const get = async (i: number): Promise<number> => {
    const result = await helia.blockstore.get(cids[i]);
    if (result instanceof Uint8Array) return result.length;
    let length = 0;
    for await (const chunk of result) length += chunk.length;
    return length;
  };
  for (const [index, name] of names.entries()) {
    const depth = Number(name.slice(3));
    const count = depth === 1 ? Math.max(1, COUNT >> 4) : COUNT;
    await phase(name, () => fetchBlocks(index * COUNT, count, depth, get));
  }
  Deno.exit(0);
}

/**
 * The way down a path: through directories of UnixFS, sharded ones too, and through what dag-cbor and dag-json link to.
 *
 * The exporter's own way through shards is not used: it rebuilds the shard's table from what the block says, and a block
 * of a hundred bytes makes that table endless. Nor is its way through other nodes: under a file without links it finds
 * whatever it is asked for.
 */

import { ownCid, readNode, type UnixFsNode } from "./_unixfs.ts";
import { BlockNotFoundError } from "./blockstore.ts";
import { type CID, DAG_PB_CODEC, RAW_CODEC } from "./cid.ts";
import { utf8 } from "./_core.ts";

/** Children that a node of a shard has room for: powers of two, within what others write. */
const MIN_FANOUT = 8;
const MAX_FANOUT = 1024;
const HASH_BITS = 64;

/** The names in a path; empty ones are left out. */
export function namesOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "");
}

/**
 * The CIDs that stand for the root and for each name: of a sharded directory its first block alone. `get` is called for
 * every block on the way but the last; what it throws is thrown on.
 *
 * @throws {BlockNotFoundError} when there is no such path
 */
export async function* walkPath(
  root: CID,
  names: readonly string[],
  get: (cid: CID) => Promise<Uint8Array>,
): AsyncGenerator<CID, void, undefined> {
  let cid = root;
  yield cid;
  for (let at = 0; at < names.length;) {
    const found = cid.code === RAW_CODEC
      ? undefined
      : cid.code === DAG_PB_CODEC
      ? await findEntry(await nodeOf(cid, await get(cid)), names[at]!, get)
      : await findLink(cid, await get(cid), names.slice(at));
    if (found === undefined) throw new BlockNotFoundError([root], `there is no ${names.join("/")} under it`);
    at += found.taken;
    if (found.cid.equals(cid)) continue;
    cid = found.cid;
    yield cid;
  }
}

interface Found {
  readonly cid: CID;
  /** Names that led there. */
  readonly taken: number;
}

/** The block as UnixFS; what is none has nothing under it. */
async function nodeOf(cid: CID, block: Uint8Array): Promise<UnixFsNode | undefined> {
  try {
    return await readNode(cid, block);
  } catch {
    return undefined;
  }
}

async function findEntry(
  node: UnixFsNode | undefined,
  name: string,
  get: (cid: CID) => Promise<Uint8Array>,
): Promise<Found | undefined> {
  // Whoever keeps the way keeps none of its blocks.
  const linkOf = ({ links }: UnixFsNode, name: string): CID | undefined => {
    const link = links.find((link) => link.name === name);
    return link && ownCid(link.cid);
  };
  if (node?.type === "directory") {
    const cid = linkOf(node, name);
    return cid === undefined ? undefined : { cid, taken: 1 };
  }
  // The hash's bits, the highest first, choose the child in each node.
  let hash: bigint | undefined;
  let left = HASH_BITS;
  while (node?.type === "hamt-sharded-directory") {
    hash ??= await nameHash(name);
    const bits = Math.log2(node.fanout);
    if (node.fanout < MIN_FANOUT || node.fanout > MAX_FANOUT || !Number.isInteger(bits)) return undefined;
    left -= bits;
    if (left < 0) return undefined;
    const place = Number((hash >> BigInt(left)) & BigInt(node.fanout - 1));
    const prefix = place.toString(16).toUpperCase().padStart((node.fanout - 1).toString(16).length, "0");
    const cid = linkOf(node, prefix + name);
    if (cid !== undefined) return { cid, taken: 1 };
    const below = linkOf(node, prefix);
    if (below === undefined || below.code !== DAG_PB_CODEC) return undefined;
    node = await nodeOf(below, await get(below));
  }
  return undefined;
}

/** Places a name in a sharded directory (multicodec `murmur3-x64-64`). It resists nobody: names of one hash are easily made. */
export async function nameHash(name: string): Promise<bigint> {
  const { murmur364 } = await import("@multiformats/murmur3");
  const { buffer, byteOffset } = await murmur364.encode(utf8(name));
  return new DataView(buffer, byteOffset).getBigUint64(0);
}

/** What the names lead to in a block of a codec that is left to the exporter. */
async function findLink(cid: CID, block: Uint8Array, names: readonly string[]): Promise<Found | undefined> {
  const exporter = await import("ipfs-unixfs-exporter");
  const reader = {
    async *get(): AsyncGenerator<Uint8Array> {
      yield block;
    },
  };
  const path = [cid, ...names.map((name) => name.replaceAll("/", "\\/"))].join("/");
  try {
    for await (const { cid: next, remainder } of exporter.walkPath(path, reader)) {
      // First comes the block itself. Below the next one it is not asked to go.
      if (!next.equals(cid)) return { cid: ownCid(next), taken: names.length - remainder.length };
    }
    return { cid, taken: names.length };
  } catch {
    // No such key, or no such codec.
    return undefined;
  }
}

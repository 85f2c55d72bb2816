/**
 * What is read of UnixFS nodes: enough to walk a file, to find a way through directories (`_path.ts`), and to tell files,
 * directories and shards apart. Writing is left to the ecosystem's importer.
 *
 * The exporter's own reading of files is not used: it queues a whole file ahead of a slow reader, and a block that is
 * missing below the first level ends as an unhandled rejection.
 */

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { CID as MultiformatsCid } from "multiformats/cid";
import { blockKey, type CID, DAG_PB_CODEC, RAW_CODEC } from "./cid.ts";
import { HtxError } from "./_core.ts";

/** `DataType` of the UnixFS protobuf. */
const TYPES = ["raw", "directory", "file", "metadata", "symlink", "hamt-sharded-directory"] as const;

/** What a UnixFS node is. */
export type UnixFsType = (typeof TYPES)[number];

/** A link of a node. */
export interface NodeLink {
  readonly cid: CID;
  readonly name: string;
}

/** A block as UnixFS sees it. */
export interface UnixFsNode {
  readonly type: UnixFsType;
  /** Bytes that the node itself holds. */
  readonly data: Uint8Array;
  /** For files: bytes under each link. */
  readonly sizes: readonly number[];
  readonly links: readonly NodeLink[];
  /** For shards: how many children a node of the trie has room for. */
  readonly fanout: number;
}

const NOTHING: Uint8Array = /* @__PURE__ */ new Uint8Array();

/**
 * Reads a block of codec raw or dag-pb.
 *
 * @throws {HtxError} `MALFORMED`, field `file`
 */
export async function readNode(cid: CID, block: Uint8Array): Promise<UnixFsNode> {
  if (cid.code === RAW_CODEC) return { type: "raw", data: block, sizes: [], links: [], fanout: 0 };
  if (cid.code !== DAG_PB_CODEC) throw malformed(cid, `its codec is 0x${cid.code.toString(16)}`);
  const { decode } = await import("@ipld/dag-pb");
  try {
    const { Data, Links } = decode(block);
    const { type, data, sizes, fanout } = readData(Data ?? NOTHING);
    const links = Links.map(({ Hash, Name = "" }) => ({ cid: Hash, name: Name }));
    const node = { type, data, sizes, links, fanout };
    if (type === "file" || type === "raw") {
      if (sizes.length !== links.length) {
        throw new RangeError(`it has ${links.length} links and ${sizes.length} sizes`);
      }
      safe(fileSize(node));
    }
    return node;
  } catch (cause) {
    throw malformed(cid, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

/** The message `Data` of unixfs.proto. */
function readData(bytes: Uint8Array): Pick<UnixFsNode, "type" | "data" | "sizes" | "fanout"> {
  const reader = new BinaryReader(bytes);
  let type: number | undefined;
  let data = NOTHING;
  let fanout = 0;
  const sizes: number[] = [];
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field === 1 && wire === WireType.Varint) type = reader.int32();
    else if (field === 2 && wire === WireType.LengthDelimited) data = reader.bytes();
    else if (field === 4 && wire === WireType.Varint) sizes.push(safe(reader.uint64()));
    else if (field === 4 && wire === WireType.LengthDelimited) {
      const packed = new BinaryReader(reader.bytes());
      while (packed.pos < packed.len) sizes.push(safe(packed.uint64()));
    } else if (field === 6 && wire === WireType.Varint) fanout = safe(reader.uint64());
    else reader.skip(wire, field);
  }
  const name = type === undefined ? undefined : TYPES[type];
  if (name === undefined) throw new RangeError("it is no UnixFS node");
  return { type: name, data, sizes, fanout };
}

function safe(value: bigint | string | number): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError("a size passes 2^53-1");
  return number;
}

export function malformed(cid: CID, why: string, cause?: unknown): HtxError {
  return new HtxError("MALFORMED", `Cannot read file ${cid}: ${why}`, { field: "file", cause });
}

/** Bytes of a file, in the node and under its links. */
export function fileSize({ data, sizes }: Pick<UnixFsNode, "data" | "sizes">): number {
  return sizes.reduce((sum, size) => sum + size, data.length);
}

/**
 * Parts of a file that may wait for those before them. No single node has room for as many, nor have five on the way down
 * with 45 000 links by hash each; a way that goes down for ever, with as many beside each step, would fill the memory.
 */
export const MAX_WAITING_PARTS: number = 2 ** 18;

/** A part of a file whose block is not read yet. */
interface Part {
  readonly cid: CID;
  readonly start: number;
  readonly size: number;
  block: Promise<Uint8Array> | undefined;
}

/** A block on the way through a file, and what of it lies in the range. */
export interface FileBlock {
  readonly cid: CID;
  readonly block: Uint8Array;
  /** Bytes of the file in this very block and in the range. */
  readonly content: Uint8Array;
}

/** Options of {@linkcode walkFile}. */
export interface WalkOptions {
  /** First byte wanted. */
  readonly from: number;
  /** End of the bytes wanted. */
  readonly to: number;
  /** Blocks asked for at once, at most. */
  readonly readAhead: number;
  /**
   * Where to remember what was walked, so that the same part of the same block is not walked again: a file whose
   * parts are shared many times over then costs no more than its blocks. Without it every byte comes as often as
   * it occurs.
   */
  readonly seen?: SeenSet | undefined;
  /** Gives up. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * All blocks of a file that hold or lead to bytes from `from` up to `to`, root first, depth first, in the order of
 * the file. What is under a link of size 0 adds no byte, and is left out.
 */
export async function* walkFile(
  root: CID,
  rootBlock: Uint8Array,
  get: (cid: CID) => Promise<Uint8Array>,
  options: WalkOptions,
): AsyncGenerator<FileBlock, void, undefined> {
  const { from, to, readAhead, seen, signal } = options;
  const rest = restful(signal);
  const size = fileSize(await readNode(root, rootBlock));
  // In reverse: the next part is the last one.
  const parts: Part[] = [{ cid: root, start: 0, size, block: Promise.resolve(rootBlock) }];
  for (let part; (part = parts.pop()) !== undefined;) {
    await rest();
    if (seen?.add(keyOf(part, from, to)) === false) continue;
    const block = await (part.block ?? get(part.cid));
    const node = await readNode(part.cid, block);
    if (node.type !== "file" && node.type !== "raw") throw malformed(root, `there is a ${node.type} in it`);
    if (fileSize(node) !== part.size) {
      throw malformed(root, `a part of it has ${fileSize(node)} bytes in place of ${part.size}`);
    }
    const children: Part[] = [];
    let at = part.start + node.data.length;
    for (const [i, { cid }] of node.links.entries()) {
      const size = node.sizes[i]!;
      // A node holds any number of links without a byte behind them, and each of those as many again.
      if (size > 0 && from < to && at < to && at + size > from) {
        children.push({ cid: ownCid(cid), start: at, size, block: undefined });
      }
      at += size;
    }
    requireRoom(root, parts.length + children.length, MAX_WAITING_PARTS);
    for (const child of children.reverse()) parts.push(child);
    for (const ahead of parts.slice(-readAhead)) {
      if (ahead.block !== undefined || seen?.has(keyOf(ahead, from, to))) continue;
      ahead.block = get(ahead.cid);
      // Awaited when its turn comes; if that never is, nobody minds.
      ahead.block.catch(() => {});
    }
    const begin = Math.max(0, from - part.start);
    const end = Math.max(begin, Math.min(node.data.length, to - part.start));
    yield { cid: part.cid, block, content: node.data.subarray(begin, end) };
  }
}

/** A CID by itself: that of a link is a view of the block around it, which would have to wait with it. */
export function ownCid(cid: CID): CID {
  return MultiformatsCid.decode(cid.bytes.slice());
}

/** @throws {HtxError} `LIMIT_EXCEEDED` when more links wait than may */
export function requireRoom(root: CID, waiting: number, limit: number): void {
  if (waiting <= limit) return;
  throw new HtxError("LIMIT_EXCEEDED", `Cannot walk ${root}: more than ${limit} links wait on the way down`);
}

/** What of which block a part stands for: its place in the file does not matter. */
function keyOf({ cid, start, size }: Part, from: number, to: number): string {
  return `${Math.max(0, from - start)},${Math.min(size, to - start)},${size},${nodeKey(cid)}`;
}

/**
 * A short string that is equal for CIDs of the same node: of the same block, read by the same codec. The bytes of a
 * dag-pb node may be linked to as a raw block too, which has no links.
 */
export function nodeKey(cid: CID): string {
  return `${cid.code},${blockKey(cid)}`;
}

/** Keys seen, up to a bound. */
export class SeenSet {
  readonly #keys = new Set<string>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /**
   * Whether the key is new.
   *
   * @throws {HtxError} `LIMIT_EXCEEDED` when there is no room for it
   */
  add(key: string): boolean {
    if (this.#keys.has(key)) return false;
    if (this.#keys.size >= this.#limit) {
      throw new HtxError("LIMIT_EXCEEDED", `Cannot walk DAG: it has more than ${this.#limit} blocks`);
    }
    this.#keys.add(key);
    return true;
  }
}

/** Time of work in one go, in ms: long enough that what a timer costs does not show. */
const MAX_WORK_TIME = 20;

/**
 * Gives a function to call at each step of long work: now and then it lets timers and sockets have their turn, for
 * blocks in memory alone would be walked without ever doing so. It rejects once the signal has aborted.
 */
export function restful(signal?: AbortSignal): () => void | Promise<void> {
  let since = performance.now();
  return () => {
    signal?.throwIfAborted();
    if (performance.now() - since < MAX_WORK_TIME) return;
    return new Promise<void>((resolve) => setTimeout(resolve, 0)).then(() => {
      since = performance.now();
      signal?.throwIfAborted();
    });
  };
}

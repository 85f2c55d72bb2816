/**
 * Files made of blocks: a stream becomes UnixFS blocks and a root, and a root the stream again, through the
 * ecosystem's importer and exporter, so that the CIDs are those that kubo and Helia compute.
 *
 * Neither direction holds more than a few blocks in memory, whatever the file's size and however slow its reader.
 *
 * The root of a file of several chunks has the codec dag-pb, its leaves are raw. In the exchange a block is known by
 * its multihash, so both kinds travel alike.
 *
 * This module is browser compatible. Importer and exporter are loaded when first used.
 *
 * @module
 */

import { fileSize, malformed, readNode, walkFile } from "./_unixfs.ts";
import { namesOf, walkPath } from "./_path.ts";
import type { Blockstore } from "./blockstore.ts";
import { type CID, inlineBlock, joinBlock } from "./cid.ts";
import { HtxError, raced } from "./_core.ts";

/** What a file's bytes may come from. */
export type FileContent =
  | Uint8Array
  | Blob
  | ReadableStream<Uint8Array>
  | Iterable<Uint8Array>
  | AsyncIterable<Uint8Array>;

/** Names of the two sets of parameters that implementations agree on (IPIP-499). */
export type FileProfile = "unixfs-v1-2025" | "unixfs-v0-2015";

/** Options of {@linkcode addFile}. */
export interface AddFileOptions {
  /**
   * A set of parameters by name: `unixfs-v1-2025` (CIDv1, raw leaves, chunks of 1 MiB, 1024 links a node) or
   * `unixfs-v0-2015` (CIDv0, wrapped leaves, chunks of 256 KiB, 174 links). Without it the parameters are those of
   * `ipfs add --cid-version=1`: CIDv1, raw leaves, chunks of 256 KiB, 174 links. The options below go before it.
   */
  readonly profile?: FileProfile | undefined;
  /** Bytes of a chunk. @default {262144} */
  readonly chunkSize?: number | undefined;
  /** Links of a node. @default {174} */
  readonly maxLinks?: number | undefined;
  /** Whether chunks are stored as they are, rather than wrapped. @default {true} */
  readonly rawLeaves?: boolean | undefined;
  /** CID version of the root and of wrapped nodes. @default {1} */
  readonly cidVersion?: 0 | 1 | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes taken so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

/** Default of {@linkcode AddFileOptions.chunkSize}. */
export const DEFAULT_CHUNK_SIZE: number = 256 * 1024;
/** Default of {@linkcode AddFileOptions.maxLinks}. */
export const DEFAULT_MAX_LINKS = 174;

/** A file that was added. */
export interface AddedFile {
  /** The root. */
  readonly cid: CID;
  /** Bytes of the file. */
  readonly size: number;
}

/** Chunks hashed and stored at once: what bounds the memory of an import. */
const WRITE_CONCURRENCY = 8;
/** Largest chunk: a block must fit one message, wrapped or not. */
const MAX_CHUNK_SIZE: number = 2 * 1024 * 1024 - 64;

/**
 * Stores a file, and gives its root. An empty file has a root too.
 *
 * @throws {RangeError} when an option is out of its range
 *
 * @example
 * ```ts
 * import { addFile, catFile, VerifiedBlockstore } from "@betanet/htx/bitswap";
 * import { assertEquals } from "@std/assert";
 *
 * const store = new VerifiedBlockstore();
 * const { cid } = await addFile(store, new Uint8Array(1_000_000));
 * let size = 0;
 * for await (const piece of catFile(store, cid)) size += piece.length;
 * assertEquals(size, 1_000_000);
 * ```
 */
export async function addFile(
  blockstore: Pick<Blockstore, "put">,
  content: FileContent,
  options: AddFileOptions = {},
): Promise<AddedFile> {
  const { profile, signal, onProgress } = options;
  const parameters = { ...profileOf(profile), ...given(options) };
  const { chunkSize, maxLinks, rawLeaves, cidVersion } = parameters;
  requireRange("chunkSize", chunkSize, MAX_CHUNK_SIZE);
  requireRange("maxLinks", maxLinks, 16_384, 2);
  signal?.throwIfAborted();
  const [{ importer }, { fixedSize }, { balanced }] = await Promise.all([
    import("ipfs-unixfs-importer"),
    import("ipfs-unixfs-importer/chunker"),
    import("ipfs-unixfs-importer/layout"),
  ]);
  let size = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    const source = iterate(content);
    let isDone = false;
    try {
      for (;;) {
        const { done = false, value } = await raced(Promise.resolve(source.next()), signal);
        isDone = done;
        if (done) return;
        size += value.length;
        onProgress?.(size);
        yield value;
      }
    } finally {
      // A source that still waits for its next bytes is told, not waited for.
      if (!isDone) (async () => await source.return?.())().catch(() => {});
    }
  }
  const results = importer([{ content: counted() }], blockstore, {
    chunker: fixedSize({ chunkSize }),
    layout: balanced({ maxChildrenPerNode: maxLinks }),
    rawLeaves,
    cidVersion,
    reduceSingleLeafToSelf: true,
    blockWriteConcurrency: WRITE_CONCURRENCY,
    fileImportConcurrency: 1,
    wrapWithDirectory: false,
  });
  const root = async (): Promise<AddedFile> => {
    for await (const { cid } of results) return { cid, size };
    throw new HtxError("INTERNAL_ERROR", "Cannot add file: the importer gave no root");
  };
  return await raced(root(), signal);
}

interface Parameters {
  readonly chunkSize: number;
  readonly maxLinks: number;
  readonly rawLeaves: boolean;
  readonly cidVersion: 0 | 1;
}

function profileOf(profile: FileProfile | undefined): Parameters {
  switch (profile) {
    case undefined:
      return { chunkSize: DEFAULT_CHUNK_SIZE, maxLinks: DEFAULT_MAX_LINKS, rawLeaves: true, cidVersion: 1 };
    // https://specs.ipfs.tech/ipips/ipip-0499/
    case "unixfs-v0-2015":
      return { chunkSize: 262_144, maxLinks: 174, rawLeaves: false, cidVersion: 0 };
    case "unixfs-v1-2025":
      return { chunkSize: 1_048_576, maxLinks: 1024, rawLeaves: true, cidVersion: 1 };
    default:
      throw new RangeError(`Cannot add file: there is no profile ${profile}`);
  }
}

function given({ chunkSize, maxLinks, rawLeaves, cidVersion }: AddFileOptions): Partial<Parameters> {
  return {
    ...(chunkSize === undefined ? {} : { chunkSize }),
    ...(maxLinks === undefined ? {} : { maxLinks }),
    ...(rawLeaves === undefined ? {} : { rawLeaves }),
    ...(cidVersion === undefined ? {} : { cidVersion }),
  };
}

function requireRange(name: string, value: number, max: number, min = 1): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`Cannot add file: ${name} is ${value}, must be ${min} to ${max}`);
  }
}

function iterate(content: FileContent): Iterator<Uint8Array> | AsyncIterator<Uint8Array> {
  if (content instanceof Uint8Array) return [content].values();
  if (content instanceof Blob) return iterate(content.stream());
  if (content instanceof ReadableStream) return readingOf(content);
  return Symbol.asyncIterator in content ? content[Symbol.asyncIterator]() : content[Symbol.iterator]();
}

/** Unlike a stream's own iterator it can be left while a read is under way. */
function readingOf(stream: ReadableStream<Uint8Array>): AsyncIterator<Uint8Array> {
  const reader = stream.getReader();
  return {
    async next(): Promise<IteratorResult<Uint8Array>> {
      const { done, value } = await reader.read();
      if (!done) return { done, value };
      reader.releaseLock();
      return { done, value: undefined };
    },
    async return(): Promise<IteratorResult<Uint8Array>> {
      await reader.cancel();
      reader.releaseLock();
      return { done: true, value: undefined };
    },
  };
}

/** Where {@linkcode catFile} reads blocks: a blockstore, or a client that fetches them. */
export interface BlockReader {
  /** The block of a CID, in pieces or as one array. */
  get(
    cid: CID,
    options?: { signal?: AbortSignal | undefined },
  ): Iterable<Uint8Array> | AsyncIterable<Uint8Array> | Promise<Uint8Array>;
}

/** Options of {@linkcode catFile}. */
export interface CatFileOptions {
  /** First byte wanted. @default {0} */
  readonly offset?: number | undefined;
  /** Bytes wanted. @default {to the end} */
  readonly length?: number | undefined;
  /** Blocks asked for ahead of the reader: what bounds the memory. @default {32} */
  readonly readAhead?: number | undefined;
  /** Way from the root down to the file, through directories: `a/b.txt`. @default {the root is the file} */
  readonly path?: string | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  readonly signal?: AbortSignal | undefined;
}

/** Default of {@linkcode CatFileOptions.readAhead}. */
export const DEFAULT_CAT_READ_AHEAD = 32;

/**
 * The bytes of a file, in order. With a client as the reader, blocks are fetched as they are needed; those that stand in
 * identity CIDs are taken from there.
 *
 * @throws {BlockNotFoundError} when a block of the file, or the path, cannot be found
 * @throws {HtxError} `MALFORMED`, field `file`, when the root is a directory or no file at all; `LIMIT_EXCEEDED`, field
 * `cid`, when an identity CID holds more than 128 bytes, and without a field when more than 262144 of its parts wait for
 * those before them
 */
export async function* catFile(
  blocks: BlockReader,
  root: CID,
  options: CatFileOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const { offset = 0, length, readAhead = DEFAULT_CAT_READ_AHEAD, path = "", signal } = options;
  if (!(Number.isSafeInteger(offset) && offset >= 0)) {
    throw new RangeError(`Cannot read file: offset is ${offset}`);
  }
  if (length !== undefined && !(Number.isSafeInteger(length) && length >= 0)) {
    throw new RangeError(`Cannot read file: length is ${length}`);
  }
  if (!(readAhead >= 1)) throw new RangeError(`Cannot read file: readAhead is ${readAhead}`);
  signal?.throwIfAborted();
  const abort = new AbortController();
  const stop = signal === undefined ? abort.signal : AbortSignal.any([signal, abort.signal]);
  const get = (cid: CID): Promise<Uint8Array> => raced(readBlock(blocks, cid, stop), stop);
  try {
    const cid = path === "" ? root : await resolve(root, path, get);
    const block = await get(cid);
    const node = await readNode(cid, block);
    if (node.type !== "file" && node.type !== "raw") throw malformed(cid, `it is a ${node.type}`);
    const to = length === undefined ? Infinity : offset + length;
    for await (const { content } of walkFile(cid, block, get, { from: offset, to, readAhead })) {
      if (content.length > 0) yield content;
      signal?.throwIfAborted();
    }
  } finally {
    abort.abort(new HtxError("CANCELLED", "Cannot read file: the reader has left"));
  }
}

/** What {@linkcode statFile} finds. */
export interface FileStat {
  /** The CID at the end of the path. */
  readonly cid: CID;
  /** What it is; only files can be read with {@linkcode catFile}. */
  readonly type: "file" | "directory" | "symlink" | "metadata";
  /** Bytes of a file; 0 for everything else. */
  readonly size: number;
}

/**
 * What a CID is, and how long, from its root block alone.
 *
 * @throws {BlockNotFoundError} when the root, or the path, cannot be found
 * @throws {HtxError} `MALFORMED`, field `file`, when it is nothing of UnixFS; `LIMIT_EXCEEDED`, field `cid`, when an
 * identity CID holds more than 128 bytes
 */
export async function statFile(
  blocks: BlockReader,
  root: CID,
  options: Pick<CatFileOptions, "path" | "signal"> = {},
): Promise<FileStat> {
  const { path = "", signal } = options;
  signal?.throwIfAborted();
  const get = (cid: CID): Promise<Uint8Array> => raced(readBlock(blocks, cid, signal), signal);
  const cid = path === "" ? root : await resolve(root, path, get);
  const node = await readNode(cid, await get(cid));
  switch (node.type) {
    case "file":
    case "raw":
      return { cid, type: "file", size: fileSize(node) };
    case "hamt-sharded-directory":
      return { cid, type: "directory", size: 0 };
    default:
      return { cid, type: node.type, size: 0 };
  }
}

async function readBlock(
  blocks: BlockReader,
  cid: CID,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const inline = inlineBlock(cid);
  if (inline !== undefined) return inline;
  const source = blocks.get(cid, signal === undefined ? {} : { signal });
  if (source instanceof Promise) return await source;
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return joinBlock(pieces);
}

/** The CID at the end of a path. */
async function resolve(root: CID, path: string, get: (cid: CID) => Promise<Uint8Array>): Promise<CID> {
  let last = root;
  for await (const cid of walkPath(root, namesOf(path), get)) last = cid;
  return last;
}

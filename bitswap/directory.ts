/**
 * A directory of blocks, in the layout of `blockstore-fs`, that survives crashes.
 *
 * `blockstore-fs` writes to one temporary name per block and renames it: two puts of the same block share that
 * file, so one may rename what the other has only begun; and nothing reaches the disk before the rename does. Here
 * each put writes a file of its own, flushes it, and renames it: under a block's name there is the whole block or
 * nothing. Everything else is `blockstore-fs`, loaded when a directory is opened (its import asks for
 * permissions).
 *
 * @module
 */

import type { Blockstore, InputPair, Pair } from "interface-blockstore";
import type { FsBlockstore } from "blockstore-fs";
import type { ShardingStrategy } from "blockstore-fs/sharding";
import type * as NodeFs from "node:fs/promises";
import type * as NodePath from "node:path";
import {
  BlockNotFoundError,
  type BlockSource,
  type BlockstoreCallOptions,
  type QuarantiningBlockstore,
  VerifiedBlockstore,
  type VerifiedBlockstoreOptions,
} from "./blockstore.ts";
import type { CID } from "./cid.ts";
import { HtxError, selectCrypto, toHex } from "./_core.ts";

/** Options of {@linkcode openDirectory}. */
export interface DirectoryOptions extends VerifiedBlockstoreOptions {
  /**
   * Whether a put waits until block and name are on the disk, and so outlives a power cut; without it a put
   * outlives the end of the process only.
   * @default {true}
   */
  readonly sync?: boolean;
}

/** Where blocks lie while they are written. Its name hides it from the listing of blocks. */
const TEMPORARY = ".tmp";
/** Where bad blocks are put aside. */
const QUARANTINE = ".quarantine";
/** Leftovers of a crash are removed when they are older than this; younger ones may be another process's. */
const LEFTOVER_MS: number = 60 * 60 * 1000;

/**
 * Opens a directory of blocks, making it where there is none. The result verifies like every
 * {@linkcode VerifiedBlockstore}; bad blocks are moved to `.quarantine` inside the directory.
 *
 * Needs read and write permission for the directory; `blockstore-fs` asks for `--allow-sys=cpus` as it loads.
 *
 * @throws {HtxError} `UNSUPPORTED` where the runtime has no file system
 */
export async function openDirectory(
  path: string,
  options: DirectoryOptions = {},
): Promise<VerifiedBlockstore> {
  const { sync = true, ...rest } = options;
  const store = await load(path, sync);
  await store.open();
  return new VerifiedBlockstore(store, rest);
}

async function load(path: string, sync: boolean): Promise<DirectoryBlockstore> {
  try {
    const [{ FsBlockstore }, { NextToLast }, fs, node] = await Promise.all([
      import("blockstore-fs"),
      import("blockstore-fs/sharding"),
      import("node:fs/promises"),
      import("node:path"),
    ]);
    const sharding = new NextToLast();
    return new DirectoryBlockstore(
      new FsBlockstore(path, { shardingStrategy: sharding }),
      sharding,
      fs,
      node,
      node.resolve(path),
      sync,
    );
  } catch (cause) {
    throw new HtxError("UNSUPPORTED", "Cannot open blockstore: blockstore-fs does not load in this runtime", {
      cause,
    });
  }
}

class DirectoryBlockstore implements QuarantiningBlockstore {
  constructor(
    private readonly inner: FsBlockstore,
    private readonly sharding: ShardingStrategy,
    private readonly fs: typeof NodeFs,
    private readonly node: typeof NodePath,
    private readonly path: string,
    private readonly sync: boolean,
  ) {}

  async open(): Promise<void> {
    await this.inner.open();
    const temporary = this.node.join(this.path, TEMPORARY);
    await this.fs.mkdir(temporary, { recursive: true });
    const now = Date.now();
    for (const name of await this.fs.readdir(temporary)) {
      const file = this.node.join(temporary, name);
      try {
        if (now - (await this.fs.stat(file)).mtimeMs > LEFTOVER_MS) await this.fs.unlink(file);
      } catch (error) {
        if (!hasCode(error, "ENOENT")) throw error;
      }
    }
  }

  async put(cid: CID, block: BlockSource, options: BlockstoreCallOptions = {}): Promise<CID> {
    options.signal?.throwIfAborted();
    const target = this.#file(cid);
    const name = toHex(selectCrypto().randomBytes(16));
    const temporary = this.node.join(this.path, TEMPORARY, name);
    try {
      await this.#write(temporary, block);
      options.signal?.throwIfAborted();
      const directory = this.node.dirname(target);
      const made = await this.fs.mkdir(directory, { recursive: true });
      await this.fs.rename(temporary, target);
      if (this.sync) {
        await this.#flushDirectory(directory);
        if (made !== undefined) await this.#flushDirectory(this.path);
      }
    } catch (error) {
      await this.fs.unlink(temporary).catch(() => {});
      throw error;
    }
    return cid;
  }

  async #write(file: string, block: BlockSource): Promise<void> {
    const handle = await this.fs.open(file, "wx");
    try {
      if (block instanceof Uint8Array) await handle.writeFile(block);
      else for await (const piece of block) await handle.writeFile(piece);
      if (this.sync) await handle.datasync();
    } finally {
      await handle.close();
    }
  }

  /** A name is on the disk when its directory is. */
  async #flushDirectory(directory: string): Promise<void> {
    let handle;
    try {
      handle = await this.fs.open(directory, "r");
      await handle.sync();
    } catch (error) {
      // Some systems (Windows) open no directories, and keep names without being asked.
      if (!hasCode(error, "EPERM", "EISDIR", "EINVAL", "EACCES")) throw error;
    } finally {
      await handle?.close();
    }
  }

  async *get(cid: CID, options: BlockstoreCallOptions = {}): AsyncGenerator<Uint8Array> {
    options.signal?.throwIfAborted();
    let bytes;
    try {
      bytes = await this.fs.readFile(this.#file(cid));
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) throw new BlockNotFoundError([cid]);
      throw new HtxError("STORE_FAILED", `Cannot read block ${cid}`, { cause });
    }
    // A plain array: what a Buffer's `slice` does surprises.
    yield new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  has(cid: CID, options: BlockstoreCallOptions = {}): Promise<boolean> {
    return this.inner.has(cid, options);
  }

  delete(cid: CID, options: BlockstoreCallOptions = {}): Promise<void> {
    return this.inner.delete(cid, options);
  }

  async quarantine(cid: CID): Promise<void> {
    const file = this.#file(cid);
    const directory = this.node.join(this.path, QUARANTINE);
    await this.fs.mkdir(directory, { recursive: true });
    await this.fs.rename(file, this.node.join(directory, this.node.basename(file)));
  }

  putMany(
    source: Iterable<InputPair> | AsyncIterable<InputPair>,
    options?: BlockstoreCallOptions,
  ): AsyncGenerator<CID> {
    return each(source, async ({ cid, bytes }) => await this.put(cid, bytes, options));
  }

  getMany(source: Iterable<CID> | AsyncIterable<CID>, options?: BlockstoreCallOptions): AsyncGenerator<Pair> {
    return each(source, (cid) => ({ cid, bytes: this.get(cid, options) }));
  }

  deleteMany(
    source: Iterable<CID> | AsyncIterable<CID>,
    options?: BlockstoreCallOptions,
  ): AsyncGenerator<CID> {
    return each(source, async (cid) => {
      await this.delete(cid, options);
      return cid;
    });
  }

  getAll(options: BlockstoreCallOptions = {}): ReturnType<Blockstore["getAll"]> {
    return this.inner.getAll(options);
  }

  #file(cid: CID): string {
    const { dir, file } = this.sharding.encode(cid);
    return this.node.join(this.path, dir, file);
  }
}

async function* each<From, To>(
  source: Iterable<From> | AsyncIterable<From>,
  work: (item: From) => To | Promise<To>,
): AsyncGenerator<To> {
  for await (const item of source) yield await work(item);
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.some((code) => error.code === code);
}

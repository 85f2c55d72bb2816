/**
 * A directory of blocks, in the layout of `blockstore-fs`, that survives crashes.
 *
 * `blockstore-fs` writes to one temporary name per block and renames it: two puts of the same block share that
 * file, so one may rename what the other has only begun; and nothing reaches the disk before the rename does. Here
 * each put writes a file of its own, flushes it, and renames it: under a block's name there is the whole block or
 * nothing. Of `blockstore-fs` there is the naming of files, loaded when a directory is opened; either reads what the
 * other wrote. (Its store itself would ask for more permissions than for the files: cpus, uid and gid.)
 *
 * @module
 */

import type { InputPair, Pair } from "interface-blockstore";
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
  readonly sync?: boolean | undefined;
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
 * Needs read and write permission for the directory, nothing else.
 *
 * @throws {HtxError} `UNSUPPORTED` where the runtime has no file system
 * @throws the system's error where the directory can be neither opened nor made
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
    const [{ NextToLast }, fs, node] = await Promise.all([
      import("blockstore-fs/sharding"),
      import("node:fs/promises"),
      import("node:path"),
    ]);
    return new DirectoryBlockstore(new NextToLast(), fs, node, node.resolve(path), sync);
  } catch (cause) {
    throw new HtxError("UNSUPPORTED", "Cannot open blockstore: this runtime has no file system", {
      cause,
    });
  }
}

class DirectoryBlockstore implements QuarantiningBlockstore {
  constructor(
    private readonly sharding: ShardingStrategy,
    private readonly fs: typeof NodeFs,
    private readonly node: typeof NodePath,
    private readonly path: string,
    private readonly sync: boolean,
  ) {}

  async open(): Promise<void> {
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
    } catch (cause) {
      await this.fs.unlink(temporary).catch(() => {});
      options.signal?.throwIfAborted();
      throw new HtxError("STORE_FAILED", `Cannot store block ${cid}`, { cause });
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

  async has(cid: CID, options: BlockstoreCallOptions = {}): Promise<boolean> {
    options.signal?.throwIfAborted();
    try {
      return (await this.fs.stat(this.#file(cid))).isFile();
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) return false;
      throw new HtxError("STORE_FAILED", `Cannot look for block ${cid}`, { cause });
    }
  }

  async delete(cid: CID, options: BlockstoreCallOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    try {
      await this.fs.unlink(this.#file(cid));
    } catch (cause) {
      if (!hasCode(cause, "ENOENT")) {
        throw new HtxError("STORE_FAILED", `Cannot delete block ${cid}`, { cause });
      }
    }
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

  async *getAll(options: BlockstoreCallOptions = {}): AsyncGenerator<Pair> {
    for (const directory of await this.fs.readdir(this.path, { withFileTypes: true })) {
      if (!directory.isDirectory() || directory.name.startsWith(".")) continue;
      for (const name of await this.fs.readdir(this.node.join(this.path, directory.name))) {
        options.signal?.throwIfAborted();
        const cid = this.#cidOf(name);
        if (cid !== undefined) yield { cid, bytes: this.get(cid, options) };
      }
    }
  }

  /** The CID of a file's name; `undefined` for files that are no blocks. */
  #cidOf(name: string): CID | undefined {
    if (!name.endsWith(this.sharding.extension)) return undefined;
    try {
      return this.sharding.decode(name);
    } catch {
      return undefined;
    }
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

/**
 * Blockstores: the ecosystem's `interface-blockstore`, verified on the way in and on the way out.
 *
 * {@linkcode VerifiedBlockstore} wraps any implementation (memory, `blockstore-fs`, `blockstore-level`,
 * `blockstore-s3` …). A block whose bytes do not hash to its CID is never stored and never served: what has gone
 * bad underneath is taken away, reported, and then simply absent, so that whoever needs it fetches it again.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type * as Ecosystem from "interface-blockstore";
import { CID as MultiformatsCid } from "multiformats/cid";
import { decode as decodeDigest } from "multiformats/hashes/digest";
import { sha256 } from "@noble/hashes/sha2.js";
import {
  blockKey,
  blockLength,
  type CID,
  cidOf,
  isTrustedCid,
  joinBlock,
  matchesCid,
  RAW_CODEC,
  toRawCid,
} from "./cid.ts";
import { HtxError, tell, timingSafeEqual } from "./_core.ts";
import { MAX_BLOCK_LENGTH } from "./message.ts";

/** The blockstore of the ecosystem's `interface-blockstore`: whatever implements it plugs in. */
export type Blockstore = Ecosystem.Blockstore;
/** A CID and the block to store under it. */
export type InputPair = Ecosystem.InputPair;
/** A CID and the bytes stored under it. */
export type Pair = Ecosystem.Pair;

/** What the calls of a store take last. */
export interface BlockstoreCallOptions {
  /** Ends the call early with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The same for a store of the ecosystem, whose types have no signal that is `undefined`. */
function forStore(options: BlockstoreCallOptions): { signal?: AbortSignal } {
  const { signal, ...rest } = options;
  return signal === undefined ? rest : { ...rest, signal };
}

/** A block as `put` takes it: whole, or in pieces. */
export type BlockSource = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * A block is not there: in a store, or with any of the peers asked. Its `name` is the one that the ecosystem's
 * stores use. Absent is never the same as empty (e-35).
 */
export class BlockNotFoundError extends Error {
  /** The name that `interface-store` gives this error. */
  override readonly name = "NotFoundError";
  /** The CIDs that were not found. */
  readonly cids: readonly CID[];

  /** Makes the error for one or more CIDs. */
  constructor(cids: readonly CID[], why = "it is not in the store", options?: ErrorOptions) {
    const more = cids.length > 1 ? ` and ${cids.length - 1} more` : "";
    super(`Cannot get block ${cids[0]}${more}: ${why}`, options);
    this.cids = cids;
  }
}

/** Options of {@linkcode MemoryBlockstore}. */
export interface MemoryBlockstoreOptions {
  /** Bytes of blocks kept at most. @default {1073741824} */
  readonly maxBytes?: number | undefined;
  /**
   * What a put into a full store does: `"refuse"` fails it, `"evict"` drops the blocks that were not used for
   * longest.
   * @default {"refuse"}
   */
  readonly whenFull?: "refuse" | "evict" | undefined;
}

/** Default of {@linkcode MemoryBlockstoreOptions.maxBytes}: 1 GiB. */
export const DEFAULT_MEMORY_BYTES: number = 1024 ** 3;

/** A block in memory. */
interface MemoryBlock {
  readonly cid: CID;
  readonly pieces: readonly Uint8Array[];
  /**
   * Whether the bytes were found to be the CID's and have been out of everybody's reach since: then they need not be
   * hashed again to be sent.
   */
  isSure: boolean;
}

/**
 * Blocks in memory, within a bound of bytes. Blocks that are put are copied, so that later changes of the
 * caller's array do not reach the store.
 */
export class MemoryBlockstore implements Blockstore {
  readonly #blocks = new Map<string, MemoryBlock>();
  readonly #maxBytes: number;
  readonly #evict: boolean;
  #bytes = 0;

  /**
   * Makes an empty store.
   *
   * @throws {RangeError} when `maxBytes` is negative or no number
   */
  constructor(options: MemoryBlockstoreOptions = {}) {
    const { maxBytes = DEFAULT_MEMORY_BYTES, whenFull = "refuse" } = options;
    if (!(maxBytes >= 0)) throw new RangeError(`Cannot make blockstore: maxBytes is ${maxBytes}`);
    this.#maxBytes = maxBytes;
    this.#evict = whenFull === "evict";
  }

  /** Bytes of blocks held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of blocks held. */
  get size(): number {
    return this.#blocks.size;
  }

  /** Whether the block is there. */
  has(cid: CID, options: BlockstoreCallOptions = {}): boolean {
    options.signal?.throwIfAborted();
    return this.#blocks.has(blockKey(cid));
  }

  /**
   * Stores a block.
   *
   * @throws {HtxError} `STORE_FAILED` when it does not fit
   */
  put(cid: CID, block: BlockSource, options: BlockstoreCallOptions = {}): CID | Promise<CID> {
    options.signal?.throwIfAborted();
    if (block instanceof Uint8Array) return this.#set(cid, [new Uint8Array(block)]);
    return collect(block).then((pieces) => {
      options.signal?.throwIfAborted();
      return this.#set(cid, [new Uint8Array(joinBlock(pieces))]);
    });
  }

  /** @internal Takes over pieces that were just hashed; what hangs on a much larger buffer is copied off it. */
  static _adopt(store: MemoryBlockstore, cid: CID, pieces: readonly Uint8Array[], isSure: boolean): void {
    const own = pieces.map((piece) => 2 * piece.length < piece.buffer.byteLength ? piece.slice() : piece);
    store.#set(cid, own, isSure);
  }

  /** @internal The block as it is stored, for reading only. */
  static _peek(store: MemoryBlockstore, cid: CID): MemoryBlock | undefined {
    return store.#use(cid);
  }

  /** @internal Whether a store is a memory store and nothing more. */
  static _isPlain(store: Blockstore): store is MemoryBlockstore {
    // A subclass, a proxy or an object with methods of its own may do more in them than we would do past them.
    return #blocks in store && Object.getPrototypeOf(store) === MemoryBlockstore.prototype &&
      Object.keys(store).length === 0;
  }

  #set(cid: CID, pieces: readonly Uint8Array[], isSure = false): CID {
    const key = blockKey(cid);
    const length = blockLength(pieces);
    const old = this.#blocks.get(key);
    const room = this.#maxBytes - length;
    let bytes = this.#bytes - (old === undefined ? 0 : blockLength(old.pieces));
    if (room < 0 || (bytes > room && !this.#evict)) {
      throw new HtxError(
        "STORE_FAILED",
        `Cannot store block: it takes ${length} bytes, ${Math.max(0, this.#maxBytes - bytes)} are left of ` +
          `${this.#maxBytes}`,
      );
    }
    this.#blocks.delete(key);
    for (const [oldest, block] of this.#blocks) {
      if (bytes <= room) break;
      this.#blocks.delete(oldest);
      bytes -= blockLength(block.pieces);
    }
    this.#blocks.set(key, { cid: ownRawCid(cid), pieces, isSure });
    this.#bytes = bytes + length;
    return cid;
  }

  #use(cid: CID): MemoryBlock | undefined {
    const key = blockKey(cid);
    const block = this.#blocks.get(key);
    if (block !== undefined && this.#evict) {
      this.#blocks.delete(key);
      this.#blocks.set(key, block);
    }
    return block;
  }

  /**
   * The pieces of a block.
   *
   * @throws {BlockNotFoundError} when it is not there
   */
  *get(cid: CID, options: BlockstoreCallOptions = {}): Generator<Uint8Array> {
    options.signal?.throwIfAborted();
    const block = this.#use(cid);
    if (block === undefined) throw new BlockNotFoundError([cid]);
    block.isSure = false;
    yield* block.pieces;
  }

  /** Forgets a block; one that is not there is forgotten already. */
  delete(cid: CID, options: BlockstoreCallOptions = {}): void {
    options.signal?.throwIfAborted();
    const key = blockKey(cid);
    const block = this.#blocks.get(key);
    if (block === undefined) return;
    this.#blocks.delete(key);
    this.#bytes -= blockLength(block.pieces);
  }

  /** Stores many blocks, one after the other. */
  putMany(
    source: Iterable<InputPair> | AsyncIterable<InputPair>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<CID> {
    return putMany(this, source, options);
  }

  /** Many blocks in the order asked. */
  getMany(
    source: Iterable<CID> | AsyncIterable<CID>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<Pair> {
    return getMany(this, source, options);
  }

  /** Forgets many blocks. */
  deleteMany(
    source: Iterable<CID> | AsyncIterable<CID>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<CID> {
    return deleteMany(this, source, options);
  }

  /** All blocks, under their CID with codec raw. */
  *getAll(options: BlockstoreCallOptions = {}): Generator<Pair> {
    for (const block of this.#blocks.values()) {
      options.signal?.throwIfAborted();
      block.isSure = false;
      yield { cid: block.cid, bytes: generate(block.pieces) };
    }
  }
}

/** What is said of a block that went bad. */
export interface CorruptBlock {
  /** The CID it was stored under. */
  readonly cid: CID;
  /** Bytes found. */
  readonly length: number;
}

/** A store that can put a bad block aside instead of deleting it. */
export interface QuarantiningBlockstore extends Blockstore {
  /** Takes the block out of the store and keeps it elsewhere for whoever wants to look at it. */
  quarantine(cid: CID): Promise<void>;
}

/** Options of {@linkcode VerifiedBlockstore}. */
export interface VerifiedBlockstoreOptions {
  /** Longest block stored or served, in bytes; a longer one that is there is absent, and left alone. @default {2097152} */
  readonly maxBlockLength?: number | undefined;
  /** Called for each block found bad on reading, after it was taken out of the store. */
  readonly onCorrupt?: ((block: CorruptBlock) => void) | undefined;
}

/**
 * Any blockstore, with every block checked against its CID on the way in and on the way out (e-35).
 *
 * A block that reads wrong is quarantined: put aside where the store underneath can do that, else deleted, and in
 * any case not served until the right bytes are put again.
 *
 * @example
 * ```ts
 * import { cidOf, MemoryBlockstore, VerifiedBlockstore } from "@betanet/htx/bitswap";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * const store = new VerifiedBlockstore(new MemoryBlockstore());
 * const block = new TextEncoder().encode("hello");
 * const cid = cidOf(block);
 * await store.put(cid, block);
 * assertEquals(await store.getBytes(cid), block);
 * await assertRejects(() => store.put(cid, new TextEncoder().encode("other")));
 * ```
 */
export class VerifiedBlockstore implements Blockstore {
  readonly #inner: Blockstore;
  readonly #memory: MemoryBlockstore | undefined;
  readonly #maxBlockLength: number;
  readonly #onCorrupt: ((block: CorruptBlock) => void) | undefined;
  /** Keys of blocks that read wrong and have not been put again. */
  readonly #bad = new Set<string>();
  /** Keys of blocks that are right and too long: what is shorter is none of them. */
  readonly #long = new Set<string>();
  /** Last write under way for a key: a put and the removal of a bad block never overlap. */
  readonly #writes = new Map<string, Promise<unknown>>();

  /**
   * Wraps `inner`, memory by default. Whoever writes to `inner` directly is found out on reading.
   *
   * @throws {RangeError} when `maxBlockLength` is negative or no number
   */
  constructor(inner: Blockstore = new MemoryBlockstore(), options: VerifiedBlockstoreOptions = {}) {
    const { maxBlockLength = MAX_BLOCK_LENGTH, onCorrupt } = options;
    if (!(maxBlockLength >= 0)) {
      throw new RangeError(`Cannot make blockstore: maxBlockLength is ${maxBlockLength}`);
    }
    this.#inner = inner;
    this.#memory = MemoryBlockstore._isPlain(inner) ? inner : undefined;
    this.#maxBlockLength = maxBlockLength;
    this.#onCorrupt = onCorrupt;
  }

  /** `store` itself when it verifies already, else a wrapper around it. */
  static of(store: Blockstore | undefined): VerifiedBlockstore {
    return store instanceof VerifiedBlockstore ? store : new VerifiedBlockstore(store);
  }

  /** Whether the store has the block; whether its bytes are right is known when it is read. */
  has(cid: CID, options: BlockstoreCallOptions = {}): boolean | Promise<boolean> {
    options.signal?.throwIfAborted();
    if (!isTrustedCid(cid) || this.#isHidden(cid)) return false;
    return this.#inner.has(cid, forStore(options));
  }

  /**
   * Stores a block if its bytes are what the CID names.
   *
   * @throws {HtxError} `MALFORMED` when they are not, `LIMIT_EXCEEDED` when there are too many, `UNSUPPORTED` when
   * the CID's hash is not sha2-256
   */
  async put(cid: CID, block: BlockSource, options: BlockstoreCallOptions = {}): Promise<CID> {
    options.signal?.throwIfAborted();
    const pieces = block instanceof Uint8Array ? [block] : await collect(block, this.#maxBlockLength);
    if (!isTrustedCid(cid)) {
      throw new HtxError("UNSUPPORTED", `Cannot store block ${cid}: its hash is not sha2-256`);
    }
    const length = blockLength(pieces);
    if (length > this.#maxBlockLength) {
      throw new HtxError(
        "LIMIT_EXCEEDED",
        `Cannot store block ${cid}: length is ${length}, limit is ${this.#maxBlockLength}`,
      );
    }
    // In memory the store's own copy is made first and checked then: what the caller does to his changes nothing.
    const own = this.#memory === undefined ? pieces : [new Uint8Array(joinBlock(pieces))];
    if (!matchesCid(cid, own)) {
      throw new HtxError("MALFORMED", `Cannot store block ${cid}: its bytes hash to another CID`, {
        field: "block",
      });
    }
    if (this.#memory === undefined) {
      await this.#write(cid, () => this.#inner.put(cid, joinBlock(pieces), forStore(options)));
    } else {
      MemoryBlockstore._adopt(this.#memory, cid, own, true);
      this.#bad.delete(blockKey(cid));
    }
    return cid;
  }

  /** Stores raw bytes under the CID they hash to, and gives that CID. */
  async add(
    bytes: Uint8Array,
    options: BlockstoreCallOptions & { codec?: number | undefined } = {},
  ): Promise<CID> {
    const { codec = RAW_CODEC, ...rest } = options;
    return await this.put(cidOf(bytes, codec), bytes, rest);
  }

  /**
   * @internal Stores a block that the caller has just hashed itself, and whose pieces it gives away: the hash and the
   * copy are saved.
   */
  static _putHashed(
    store: VerifiedBlockstore,
    cid: CID,
    pieces: readonly Uint8Array[],
  ): void | Promise<void> {
    if (store.#memory === undefined) {
      return store.#write(cid, () => store.#inner.put(cid, joinBlock(pieces)));
    }
    // Whoever waits for the block gets the same pieces.
    MemoryBlockstore._adopt(store.#memory, cid, pieces, false);
    store.#bad.delete(blockKey(cid));
  }

  /**
   * @internal {@linkcode VerifiedBlockstore.read} for who changes the pieces as little as he hands them on: what is in
   * memory and was out of everybody's reach is not hashed again.
   */
  static _readToSend(
    store: VerifiedBlockstore,
    cid: CID,
  ): readonly Uint8Array[] | undefined | Promise<readonly Uint8Array[] | undefined> {
    return store.#read(cid, {}, true);
  }

  /** The block in pieces as the store has them, or `undefined` when it is absent or bad. */
  read(
    cid: CID,
    options: BlockstoreCallOptions = {},
  ): readonly Uint8Array[] | undefined | Promise<readonly Uint8Array[] | undefined> {
    return this.#read(cid, options, false);
  }

  #read(
    cid: CID,
    options: BlockstoreCallOptions,
    isToSend: boolean,
  ): readonly Uint8Array[] | undefined | Promise<readonly Uint8Array[] | undefined> {
    options.signal?.throwIfAborted();
    if (!isTrustedCid(cid)) return undefined;
    if (this.#memory !== undefined) {
      const block = MemoryBlockstore._peek(this.#memory, cid);
      if (block === undefined) return undefined;
      const isSure = block.isSure;
      if (!isToSend) block.isSure = false;
      if (isSure || matchesCid(cid, block.pieces)) return block.pieces;
      return this.#quarantine(cid).then(() => undefined);
    }
    if (this.#isHidden(cid)) return undefined;
    return this.#readInner(cid, options);
  }

  #isHidden(cid: CID): boolean {
    const key = blockKey(cid);
    return this.#bad.has(key) || this.#long.has(key);
  }

  async #readInner(cid: CID, options: BlockstoreCallOptions): Promise<readonly Uint8Array[] | undefined> {
    let pieces;
    try {
      pieces = await collect(this.#inner.get(cid, forStore(options)), this.#maxBlockLength);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      if (!(error instanceof HtxError && error.code === "LIMIT_EXCEEDED")) throw error;
    }
    if (pieces !== undefined && matchesCid(cid, pieces)) return pieces;
    await this.#quarantine(cid);
    return undefined;
  }

  /** The block in one array. It may be the store's own: do not change it. */
  async getBytes(cid: CID, options: BlockstoreCallOptions = {}): Promise<Uint8Array> {
    const pieces = await this.read(cid, options);
    if (pieces === undefined) throw new BlockNotFoundError([cid]);
    return joinBlock(pieces);
  }

  /**
   * The pieces of a block, after all of it was checked.
   *
   * @throws {BlockNotFoundError} when it is absent or bad
   */
  async *get(cid: CID, options: BlockstoreCallOptions = {}): AsyncGenerator<Uint8Array> {
    const pieces = await this.read(cid, options);
    if (pieces === undefined) throw new BlockNotFoundError([cid]);
    yield* pieces;
  }

  /** Deletes a block. */
  async delete(cid: CID, options: BlockstoreCallOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await this.#write(cid, () => this.#inner.delete(cid, forStore(options)));
  }

  /** Stores many blocks, one after the other. */
  putMany(
    source: Iterable<InputPair> | AsyncIterable<InputPair>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<CID> {
    return putMany(this, source, options);
  }

  /** Many blocks in the order asked, each checked when its bytes are read. */
  getMany(
    source: Iterable<CID> | AsyncIterable<CID>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<Pair> {
    return getMany(this, source, options);
  }

  /** Deletes many blocks. */
  deleteMany(
    source: Iterable<CID> | AsyncIterable<CID>,
    options: BlockstoreCallOptions = {},
  ): AsyncGenerator<CID> {
    return deleteMany(this, source, options);
  }

  /** All blocks, each checked when its bytes are read. */
  async *getAll(options: BlockstoreCallOptions = {}): AsyncGenerator<Pair> {
    for await (const { cid } of this.#inner.getAll(forStore(options))) {
      // Stores that keep multihashes make up the rest of the CID; raw is what holds for any block.
      const raw = toRawCid(MultiformatsCid.asCID(cid) ?? cid);
      yield { cid: raw, bytes: this.get(raw, options) };
    }
  }

  async #write(cid: CID, write: () => unknown): Promise<void> {
    await this.#exclusive(blockKey(cid), async () => {
      await write();
      this.#bad.delete(blockKey(cid));
    });
  }

  async #quarantine(cid: CID): Promise<void> {
    const key = blockKey(cid);
    const length = await this.#exclusive(key, async () => {
      const found = await this.#reread(cid);
      if (found === undefined) return undefined;
      // From here on it is hidden, even if the store underneath fails to let go of it.
      this.#bad.add(key);
      try {
        await (isQuarantining(this.#inner) ? this.#inner.quarantine(cid) : this.#inner.delete(cid));
        this.#bad.delete(key);
      } catch {
        // A store that is read-only, or failing: the block stays hidden until it is put again.
      }
      return found;
    });
    if (length !== undefined) tell(this.#onCorrupt, { cid, length });
  }

  /**
   * Length of the block if it is there and still wrong: a good put may have come first. It may be right and too long, and
   * then is somebody else's to keep.
   */
  async #reread(cid: CID): Promise<number | undefined> {
    const hash = sha256.create();
    let length = 0;
    try {
      for await (const piece of this.#inner.get(cid)) {
        hash.update(piece);
        length += piece.length;
      }
    } catch {
      return undefined;
    }
    if (!timingSafeEqual(hash.digest(), cid.multihash.digest)) return length;
    if (length > this.#maxBlockLength) this.#long.add(blockKey(cid));
    return undefined;
  }

  async #exclusive<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#writes.get(key);
    const mine = before === undefined ? work() : before.then(work, work);
    this.#writes.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#writes.get(key) === mine) this.#writes.delete(key);
    }
  }
}

/** {@linkcode toRawCid} by itself: that of a link, or of a CAR, is a view of all that it was read from. */
function ownRawCid({ multihash }: CID): CID {
  return MultiformatsCid.createV1(RAW_CODEC, decodeDigest(multihash.bytes.slice()));
}

/** Whether an error of a store says that the block is not there. */
export function isNotFound(error: unknown): boolean {
  return error instanceof Error && error.name === "NotFoundError";
}

function isQuarantining(store: Blockstore): store is QuarantiningBlockstore {
  return "quarantine" in store && typeof store.quarantine === "function";
}

/** The pieces of an iterable, refused as soon as they pass the limit. */
async function collect(
  source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  limit = Infinity,
): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of source) {
    length += piece.length;
    if (length > limit) {
      throw new HtxError("LIMIT_EXCEEDED", `Cannot take block: it is longer than ${limit} bytes`);
    }
    pieces.push(piece);
  }
  return pieces;
}

/** Asynchronous even so: that is what those who list a store expect. */
async function* generate(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}

async function* putMany(
  store: Blockstore,
  source: Iterable<InputPair> | AsyncIterable<InputPair>,
  options: BlockstoreCallOptions,
): AsyncGenerator<CID> {
  for await (const { cid, bytes } of source) {
    await store.put(cid, bytes, forStore(options));
    yield cid;
  }
}

async function* getMany(
  store: Blockstore,
  source: Iterable<CID> | AsyncIterable<CID>,
  options: BlockstoreCallOptions,
): AsyncGenerator<Pair> {
  for await (const cid of source) yield { cid, bytes: store.get(cid, forStore(options)) };
}

async function* deleteMany(
  store: Blockstore,
  source: Iterable<CID> | AsyncIterable<CID>,
  options: BlockstoreCallOptions,
): AsyncGenerator<CID> {
  for await (const cid of source) {
    await store.delete(cid, forStore(options));
    yield cid;
  }
}

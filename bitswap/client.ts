/**
 * {@linkcode BitswapClient}: blocks from several peers at once, each checked before anyone sees it.
 *
 * The decisions are made by `engine.ts`; here are the streams, the promises and one timer that runs only while
 * something is wanted.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { deferred, HtxError, raced, tell, timerDelay } from "./_core.ts";
import {
  BlockNotFoundError,
  type Blockstore,
  type BlockstoreCallOptions,
  VerifiedBlockstore,
} from "./blockstore.ts";
import {
  binaryCidKey,
  blockKey,
  blockLength,
  type CID,
  cidOf,
  digestKey,
  inlineBlock,
  isTrustedCid,
  joinBlock,
  RAW_CODEC,
  sha256Of,
  SHA2_256_CODE,
  SHA2_256_LENGTH,
} from "./cid.ts";
import {
  DEFAULT_STALL_TIMEOUT_MS,
  DEFAULT_STEAL_AFTER_MS,
  type DropReason,
  type PeerStats,
  WantEngine,
  type WantEngineOptions,
} from "./engine.ts";
import {
  type BitswapMessage,
  decodePieces,
  encodeFramed,
  MAX_BLOCK_LENGTH,
  MAX_MESSAGE_LENGTH,
  MessageDeframer,
  splitMessage,
  type WantlistEntry,
} from "./message.ts";
import { type BitswapPeer, type BitswapStream, protocolHeader } from "./peer.ts";

/** Options of {@linkcode BitswapClient}. */
export interface BitswapClientOptions extends WantEngineOptions {
  /** Whom to ask. More can be added later. @default {[]} */
  readonly peers?: Iterable<BitswapPeer> | undefined;
  /**
   * Looked into before anyone is asked, and given every block fetched. Without one, blocks go to the caller only.
   */
  readonly blockstore?: Blockstore | undefined;
  /** Streams kept open to each peer while something is wanted, at most 256. @default {2} */
  readonly streamsPerPeer?: number | undefined;
  /** First pause after a peer could not be reached, in ms; it doubles up to {@linkcode MAX_RECONNECT_DELAY_MS}. @default {100} */
  readonly reconnectDelayMs?: number | undefined;
  /** Time after which a peer that cannot be reached is given up until the next get, in ms. @default {30000} */
  readonly reconnectTimeoutMs?: number | undefined;
  /**
   * Streams in a row that a peer may end without having said anything, before it is given up until the next get. One
   * that refuses them as no Bitswap is given up at once.
   *
   * @default {8}
   */
  readonly maxFruitlessStreams?: number | undefined;
  /** Called when a peer is no longer asked, and why. */
  readonly onPeerDropped?: ((event: PeerDropped) => void) | undefined;
  /** Clock, in ms. @default {performance.now} */
  readonly now?: (() => number) | undefined;
}

/** Default of {@linkcode BitswapClientOptions.streamsPerPeer}. */
export const DEFAULT_STREAMS_PER_PEER = 2;
/** Default of {@linkcode BitswapClientOptions.reconnectDelayMs}. */
export const DEFAULT_RECONNECT_DELAY_MS = 100;
/** Longest pause between two tries to reach a peer, in ms. */
export const MAX_RECONNECT_DELAY_MS = 2_000;
/** Default of {@linkcode BitswapClientOptions.reconnectTimeoutMs}. */
export const DEFAULT_RECONNECT_TIMEOUT_MS = 30_000;
/** Default of {@linkcode BitswapClientOptions.maxFruitlessStreams}. */
export const DEFAULT_MAX_FRUITLESS_STREAMS = 8;

/** A peer is no longer asked. */
export interface PeerDropped {
  /** Name of the peer. */
  readonly peer: string;
  /** Why. After lies and breaches it is not asked again, else it is at the next occasion. */
  readonly reason: DropReason;
  /** The error behind it, where there is one. */
  readonly error?: unknown;
}

/** How far a call has come. */
export interface BlockProgress {
  /** The block that just arrived. */
  readonly cid: CID;
  /** Its length in bytes. */
  readonly length: number;
  /** The peer it came from; `undefined` when it was in the store, or in the CID. */
  readonly peer: string | undefined;
  /** Blocks that this call has got so far. */
  readonly blocks: number;
  /** Bytes that this call has got so far. */
  readonly bytes: number;
}

/** Options of {@linkcode BitswapClient.get}. */
export interface GetOptions extends BlockstoreCallOptions {
  /** Higher goes first, with us and with the peers; 32-bit signed. @default {1} */
  readonly priority?: number | undefined;
  /** Called for each block that arrives. */
  readonly onProgress?: ((progress: BlockProgress) => void) | undefined;
}

/** Options of {@linkcode BitswapClient.getMany}. */
export interface GetManyOptions extends GetOptions {
  /**
   * Bytes of blocks asked for or waiting for the consumer, at most, as far as sizes can be guessed: a slow consumer
   * slows the peers down.
   * @default {67108864}
   */
  readonly bufferBytes?: number | undefined;
}

/** Default of {@linkcode GetManyOptions.bufferBytes}: 64 MiB. */
export const DEFAULT_BUFFER_BYTES: number = 64 * 1024 * 1024;

/** A block that hashes to its CID, in the pieces it came in. */
export class Block {
  /** The CID asked for. */
  readonly cid: CID;
  /** The bytes, as views of what was received; for reading only. */
  readonly pieces: readonly Uint8Array[];
  #bytes: Uint8Array | undefined;

  /** Takes checked pieces over. */
  constructor(cid: CID, pieces: readonly Uint8Array[]) {
    this.cid = cid;
    this.pieces = pieces;
  }

  /** Length in bytes. */
  get length(): number {
    return blockLength(this.pieces);
  }

  /** The block in one array; joined when first asked for. */
  get bytes(): Uint8Array {
    return this.#bytes ??= joinBlock(this.pieces);
  }
}

/** Blocks stored at once while further ones arrive. */
const MAX_STORING = 16;
/** Blocks of one getMany looked for at once in our own store. */
const MAX_LOOKING = 16;
/** In-flight blocks of one getMany while no size is known yet, and bounds afterwards. */
const FIRST_IN_FLIGHT = 64;
const MIN_IN_FLIGHT = 8;
const MAX_IN_FLIGHT = 1024;
/** Stalls without a block in between after which a peer is left alone until the next get. */
const MAX_STALLS = 3;
/** Share of the in-flight blocks of one getMany that are left when more are asked for, if any waits for its consumer. */
const REFILL_BELOW = 7 / 8;
/** How long a stream may take to end by itself when the client is closed, in ms. */
const CLOSE_TIMEOUT = 1_000;
/** Time between two looks at who has stalled, at most, in ms. */
const MAX_TICK_INTERVAL = 1_000;
/** Streams that a client may have open on one connection (HTX 1.1 §4). */
const MAX_STREAMS_PER_PEER = 256;

/** Who hears of a block. */
interface Sink {
  readonly cid: CID;
  block(block: Block, peer: string | undefined): void;
  fail(error: unknown): void;
}

interface Want {
  readonly sinks: Set<Sink>;
}

/** A block that is being stored. */
interface Storing {
  readonly sinks: Set<Sink>;
  readonly end: Promise<void>;
}

/** A stream with its reader and its queue of writes. */
interface Line {
  readonly id: number;
  readonly stream: BitswapStream;
  readonly slot: Slot;
  /** When it was opened, by our clock. */
  readonly since: number;
  writes: Promise<unknown>;
  headed: boolean;
  /** Whether a wanted block came on it. */
  gave: boolean;
}

/** Whether a stream brought a word of the peer; `lost`: the connection below broke before. */
type StreamOutcome = "fruitful" | "fruitless" | "lost";

/** A peer as the client keeps it. */
interface Slot {
  readonly peer: BitswapPeer;
  readonly lines: Set<Line>;
  /** `away`: not asked until somebody wants something again; `banned`: never again. */
  state: "used" | "away" | "banned";
  abort: AbortController;
  running: Set<Promise<void>>;
  stallsInRow: number;
  fruitlessInRow: number;
  lastReached: number;
  error: unknown;
}

/**
 * Gets blocks by CID from any number of peers.
 *
 * Peers are asked for what they have, the quickest for most; a peer that sends wrong blocks or nothing at all is
 * dropped and its wants are asked elsewhere; a peer whose connection breaks is dialled again, and the fetch goes on
 * where it stood. A client with a `blockstore` never fetches what is in it. What an identity CID holds is taken from
 * there, up to 128 bytes: it is neither asked for nor stored.
 *
 * @example
 * ```ts no-assert
 * import { BitswapClient, type BitswapPeer, type CID } from "@betanet/htx/bitswap";
 *
 * async function download(peers: BitswapPeer[], cids: CID[]): Promise<number> {
 *   await using client = new BitswapClient({ peers });
 *   let bytes = 0;
 *   for await (const block of client.getMany(cids)) bytes += block.length;
 *   return bytes;
 * }
 * ```
 */
export class BitswapClient implements AsyncDisposable {
  /** The store given, verified; `undefined` without one. */
  readonly blockstore: VerifiedBlockstore | undefined;
  readonly #engine: WantEngine;
  readonly #slots = new Map<string, Slot>();
  readonly #lines = new Map<number, Line>();
  readonly #wants = new Map<string, Want>();
  readonly #streamsPerPeer: number;
  readonly #reconnectDelayMs: number;
  readonly #reconnectTimeoutMs: number;
  readonly #maxFruitless: number;
  readonly #tickInterval: number;
  readonly #onPeerDropped: ((event: PeerDropped) => void) | undefined;
  readonly #now: () => number;
  /** Blocks on their way into the store: who wants one of them waits, rather than have it fetched again. */
  readonly #storing = new Map<string, Storing>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #flushing = false;
  #nextLine = 1;
  #closed: Promise<void> | undefined;
  /** Resolved and replaced whenever something is wanted: slots without demand wait for it. */
  #demand: PromiseWithResolvers<void> = deferred();
  #averageBlock = 0;
  #lastTick = 0;
  /** Time in which nothing was read, for our own store or process was busy. */
  #deaf = 0;
  #time = 0;

  /**
   * Makes a client. Nothing is dialled before something is wanted.
   *
   * @throws {RangeError} when an option is out of its range
   */
  constructor(options: BitswapClientOptions = {}) {
    const {
      peers = [],
      blockstore,
      streamsPerPeer = DEFAULT_STREAMS_PER_PEER,
      reconnectDelayMs = DEFAULT_RECONNECT_DELAY_MS,
      reconnectTimeoutMs = DEFAULT_RECONNECT_TIMEOUT_MS,
      maxFruitlessStreams = DEFAULT_MAX_FRUITLESS_STREAMS,
      onPeerDropped,
      now = () => performance.now(),
      ...engine
    } = options;
    const positive = { streamsPerPeer, reconnectDelayMs, reconnectTimeoutMs, maxFruitlessStreams };
    for (const [name, value] of Object.entries(positive)) {
      if (!(value > 0)) throw new RangeError(`Cannot make Bitswap client: ${name} is ${value}`);
    }
    if (!Number.isInteger(streamsPerPeer) || streamsPerPeer > MAX_STREAMS_PER_PEER) {
      throw new RangeError(
        `Cannot make Bitswap client: streamsPerPeer is ${streamsPerPeer}, must be 1 to ${MAX_STREAMS_PER_PEER}`,
      );
    }
    this.#engine = new WantEngine(engine);
    this.blockstore = blockstore === undefined ? undefined : VerifiedBlockstore.of(blockstore);
    this.#streamsPerPeer = streamsPerPeer;
    this.#reconnectDelayMs = reconnectDelayMs;
    this.#reconnectTimeoutMs = reconnectTimeoutMs;
    this.#maxFruitless = maxFruitlessStreams;
    const { stallTimeoutMs = DEFAULT_STALL_TIMEOUT_MS, stealAfterMs = DEFAULT_STEAL_AFTER_MS } = engine;
    this.#tickInterval = Math.max(5, Math.min(stallTimeoutMs / 4, stealAfterMs / 4, MAX_TICK_INTERVAL));
    this.#onPeerDropped = onPeerDropped;
    this.#now = now;
    for (const peer of peers) this.addPeer(peer);
  }

  /** Figures of the peers in use. */
  get peers(): PeerStats[] {
    const stats = [];
    for (const id of this.#slots.keys()) {
      const found = this.#engine.stats(id);
      if (found !== undefined) stats.push({ ...found });
    }
    return stats;
  }

  /**
   * Adds someone to ask. A peer that was dropped for lying may be added again, if one must.
   *
   * @throws {TypeError} when a peer of this id is in use
   */
  addPeer(peer: BitswapPeer): void {
    this.#requireOpen();
    const old = this.#slots.get(peer.id);
    if (old !== undefined && old.state !== "banned") {
      throw new TypeError(`Cannot add peer: ${peer.id} is there already`);
    }
    const slot: Slot = {
      peer,
      lines: new Set(),
      state: "away",
      abort: new AbortController(),
      running: new Set(),
      stallsInRow: 0,
      fruitlessInRow: 0,
      lastReached: 0,
      error: undefined,
    };
    this.#slots.set(peer.id, slot);
    if (this.#wants.size > 0) this.#use(slot);
  }

  /** Stops asking a peer; what it owes is asked elsewhere. */
  removePeer(id: string): void {
    const slot = this.#slots.get(id);
    if (slot === undefined) return;
    this.#slots.delete(id);
    this.#leave(slot, "banned");
    this.#flush();
  }

  /**
   * One block, in one array of the caller's own.
   *
   * @throws {RangeError} when `priority` is no signed integer of 32 bits
   * @throws {BlockNotFoundError} when none of the peers has it
   * @throws {HtxError} `CONNECT_FAILED` when no peer can be reached, `UNSUPPORTED` when the CID's hash is not
   * sha2-256, `LIMIT_EXCEEDED` when it is an identity CID of more than 128 bytes, `STORE_FAILED` when the store does not
   * take the block
   */
  async get(cid: CID, options: GetOptions = {}): Promise<Uint8Array> {
    const { pieces, bytes } = await this.getBlock(cid, options);
    // A single piece is the store's too, or that of whoever else asked for the block.
    return pieces.length === 1 ? bytes.slice() : bytes;
  }

  /** {@linkcode get}, with the block in the pieces it came in. */
  async getBlock(cid: CID, options: GetOptions = {}): Promise<Block> {
    const { signal, priority, onProgress } = options;
    requirePriority(priority);
    this.#requireOpen();
    signal?.throwIfAborted();
    const report = (block: Block, peer: string | undefined): Block => {
      onProgress?.({ cid, length: block.length, peer, blocks: 1, bytes: block.length });
      return block;
    };
    const inline = inlineBlock(cid);
    if (inline !== undefined) return report(new Block(cid, [inline]), undefined);
    requireTrusted(cid);
    // Not every store looks at signals.
    const local = await raced(this.#local(cid, signal), signal);
    if (local !== undefined) return report(local, undefined);
    signal?.throwIfAborted();
    const { promise, resolve, reject } = deferred<Block>();
    const sink: Sink = {
      cid,
      block: (block, peer) => {
        try {
          resolve(report(block, peer));
        } catch (error) {
          reject(error); // of the caller's hook: others wait for the block, too
        }
      },
      fail: reject,
    };
    const abort = (): void => {
      this.#unsubscribe(sink);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#subscribe(sink, priority);
      return await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Many blocks, each as soon as it is here, in whatever order they come. Ending the loop early takes back what is
   * still wanted.
   *
   * @throws {RangeError} when an option is out of its range
   * @throws {BlockNotFoundError} after all that could be had, when some are with none of the peers
   */
  async *getMany(
    cids: Iterable<CID> | AsyncIterable<CID>,
    options: GetManyOptions = {},
  ): AsyncGenerator<Block, void, undefined> {
    const { signal, priority, onProgress, bufferBytes = DEFAULT_BUFFER_BYTES } = options;
    if (!(bufferBytes > 0)) throw new RangeError(`Cannot get blocks: bufferBytes is ${bufferBytes}`);
    requirePriority(priority);
    this.#requireOpen();
    signal?.throwIfAborted();
    const arrived: Block[] = [];
    const missing: CID[] = [];
    const open = new Set<Sink>();
    let failure: { error: unknown } | undefined;
    let blocks = 0;
    let bytes = 0;
    let wake = deferred<void>();
    const notify = (): void => wake.resolve();
    const fail = (error: unknown): void => {
      failure ??= { error };
      notify();
    };
    const deliver = (block: Block, peer: string | undefined): void => {
      arrived.push(block);
      blocks++;
      bytes += block.length;
      try {
        onProgress?.({ cid: block.cid, length: block.length, peer, blocks, bytes });
      } catch (error) {
        fail(error); // of the caller's hook: others wait for the block, too
      }
      notify();
    };
    const want = (cid: CID): void => {
      if (left || failure !== undefined) return; // meanwhile nobody wants it any more
      const sink: Sink = {
        cid,
        block: (block, peer) => {
          open.delete(sink);
          deliver(block, peer);
        },
        fail: (error) => {
          open.delete(sink);
          if (error instanceof BlockNotFoundError) missing.push(cid);
          else fail(error);
          notify();
        },
      };
      open.add(sink);
      this.#subscribe(sink, priority);
    };
    const look = async (cid: CID): Promise<void> => {
      looking++;
      try {
        const local = await this.#local(cid, signal);
        if (local === undefined) want(cid);
        else if (!left) deliver(local, undefined);
      } catch (error) {
        fail(error);
      } finally {
        looking--;
        notify();
      }
    };
    const source = Symbol.asyncIterator in cids ? cids[Symbol.asyncIterator]() : cids[Symbol.iterator]();
    const abort = (): void => fail(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    let pulling = false;
    /** Look-ups in our own store under way. */
    let looking = 0;
    let done = false;
    let left = false;
    const pull = async (): Promise<void> => {
      const limit = this.#inFlight(bufferBytes);
      const used = (): number => open.size + arrived.length + looking;
      const room = (): boolean => looking < MAX_LOOKING && used() < limit;
      // Without room nothing changes: to notify then would keep the consumer spinning. And one by one, as the consumer
      // makes room, each want would leave in a message of its own.
      if (pulling || !room() || (arrived.length > 0 && used() > limit * REFILL_BELOW)) return;
      pulling = true;
      try {
        while (!done && failure === undefined && room()) {
          const step = source.next();
          const { value, done: last } = step instanceof Promise ? await step : step;
          if (last) {
            done = true;
            break;
          }
          const inline = inlineBlock(value);
          if (inline !== undefined) {
            if (!left) deliver(new Block(value, [inline]), undefined);
            continue;
          }
          requireTrusted(value);
          if (this.blockstore === undefined) want(value);
          else void look(value);
        }
      } catch (error) {
        fail(error);
      } finally {
        pulling = false;
        notify();
      }
    };
    try {
      for (;;) {
        if (failure !== undefined) throw failure.error;
        if (!done) void pull();
        const block = arrived.shift();
        if (block !== undefined) {
          yield block;
          continue;
        }
        if (done && !pulling && looking === 0 && open.size === 0) break;
        await wake.promise;
        wake = deferred<void>();
      }
      if (missing.length > 0) throw new BlockNotFoundError(missing, "none of the peers has it");
    } finally {
      signal?.removeEventListener("abort", abort);
      done = true;
      left = true;
      for (const sink of open) this.#unsubscribe(sink);
      // A source that is still waiting for its next CID is told, not waited for.
      (async () => await source.return?.())().catch(() => {});
    }
  }

  /**
   * Stores a block here under the CID its bytes hash to. Giving it to others is a server's business.
   *
   * @throws {TypeError} when the client has no blockstore
   */
  async put(
    bytes: Uint8Array,
    options: BlockstoreCallOptions & { codec?: number | undefined } = {},
  ): Promise<CID> {
    if (this.blockstore === undefined) throw new TypeError("Cannot put block: the client has no blockstore");
    const { codec = RAW_CODEC, ...rest } = options;
    return await this.blockstore.put(cidOf(bytes, codec), bytes, rest);
  }

  /** Ends all streams. What is still wanted fails with `CLOSED`. Idempotent. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  /** {@linkcode close} */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    // The assignment of #closed comes first.
    await undefined;
    const error = new HtxError("CLOSED", "Cannot get block: the client was closed");
    for (const [key, want] of this.#wants) {
      this.#engine.cancel(key);
      for (const sink of want.sinks) sink.fail(error);
    }
    this.#wants.clear();
    this.#poll();
    this.#demand.resolve();
    const ending = [];
    for (const slot of this.#slots.values()) {
      slot.abort.abort(error);
      for (const line of slot.lines) ending.push(this.#endLine(line));
      ending.push(...slot.running);
    }
    const timer = setTimeout(() => {
      for (const line of this.#lines.values()) line.stream.reset("CANCELLED");
    }, CLOSE_TIMEOUT);
    await Promise.all(ending);
    clearTimeout(timer);
    await Promise.all([...this.#storing.values()].map(({ end }) => end));
    clearInterval(this.#timer);
  }

  async #endLine(line: Line): Promise<void> {
    try {
      await line.writes;
      if (line.headed) await line.stream.closeWrite();
      else line.stream.reset("CANCELLED");
    } catch {
      line.stream.reset("CANCELLED");
    }
  }

  #requireOpen(): void {
    if (this.#closed !== undefined) throw new HtxError("CLOSED", "Cannot use Bitswap client: it was closed");
  }

  #inFlight(bufferBytes: number): number {
    if (this.#averageBlock === 0) return FIRST_IN_FLIGHT;
    return Math.max(MIN_IN_FLIGHT, Math.min(MAX_IN_FLIGHT, Math.floor(bufferBytes / this.#averageBlock)));
  }

  async #local(cid: CID, signal: AbortSignal | undefined): Promise<Block | undefined> {
    if (this.blockstore === undefined) return undefined;
    const pieces = await this.blockstore.read(cid, signal === undefined ? {} : { signal });
    return pieces === undefined ? undefined : new Block(cid, pieces);
  }

  #subscribe(sink: Sink, priority: number | undefined): void {
    this.#requireOpen();
    const key = blockKey(sink.cid);
    const want = this.#wants.get(key) ?? this.#storing.get(key);
    if (want !== undefined) {
      want.sinks.add(sink);
      return;
    }
    if (this.#wants.size === 0) {
      // Silence counts from here: before, nobody asked.
      for (const slot of this.#slots.values()) slot.lastReached = this.#now();
    }
    this.#wants.set(key, { sinks: new Set([sink]) });
    for (const slot of this.#slots.values()) if (slot.state === "away") this.#use(slot);
    this.#engine.want(key, sink.cid.bytes, priority);
    this.#demand.resolve();
    this.#demand = deferred();
    if (this.#timer === undefined) {
      this.#lastTick = this.#now();
      this.#timer = setInterval(() => this.#tick(), this.#tickInterval);
    }
    this.#flush();
  }

  #unsubscribe(sink: Sink): void {
    const key = blockKey(sink.cid);
    this.#storing.get(key)?.sinks.delete(sink);
    const want = this.#wants.get(key);
    if (want === undefined || !want.sinks.delete(sink) || want.sinks.size > 0) return;
    this.#wants.delete(key);
    this.#engine.cancel(key);
    this.#flush();
  }

  /** Polls the engine soon: what is wanted in one go leaves in one message. */
  #flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#poll();
    });
  }

  #poll(): void {
    for (const command of this.#engine.poll(this.#engineTime())) {
      switch (command.type) {
        case "send":
          this.#send(command.stream, command.entries);
          break;
        case "missing":
          this.#missing(command.key);
          break;
        case "drop":
          this.#dropped(command.peer, command.reason);
          break;
      }
    }
    if (this.#wants.size === 0 && this.#timer !== undefined) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  /** The engine's clock: it stands still while nothing is read, for then nobody else can be said to stall. */
  #engineTime(): number {
    return this.#time = Math.max(this.#time, this.#now() - this.#deaf);
  }

  #tick(): void {
    const now = this.#now();
    const since = now - this.#lastTick;
    this.#lastTick = now;
    if (this.#storing.size >= MAX_STORING) this.#deaf += since;
    else if (since > 2 * this.#tickInterval) this.#deaf += since - this.#tickInterval;
    this.#engine.tick(this.#engineTime());
    this.#poll();
  }

  #send(id: number, entries: readonly WantlistEntry[]): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    const pieces: Uint8Array[] = [];
    if (!line.headed) pieces.push(protocolHeader());
    line.headed = true;
    for (const message of splitMessage({ wantlist: { entries } })) pieces.push(...encodeFramed(message));
    line.writes = line.writes.then(() => line.stream.write(joinBlock(pieces)));
    // The reader hears of it as well, and ends the line.
    line.writes.catch(() => line.stream.reset("CANCELLED"));
  }

  #missing(key: string): void {
    const want = this.#wants.get(key);
    if (want === undefined) return;
    this.#wants.delete(key);
    for (const sink of want.sinks) sink.fail(this.#whyMissing(sink.cid));
  }

  #whyMissing(cid: CID): Error {
    if (this.#engine.peers > 0) return new BlockNotFoundError([cid], "none of the peers has it");
    const causes = [...this.#slots.values()].map(({ error }) => error).filter((error) => error !== undefined);
    return new HtxError("CONNECT_FAILED", `Cannot get block ${cid}: there is no peer left to ask`, {
      cause: causes.length > 1 ? new AggregateError(causes) : causes[0],
    });
  }

  #dropped(id: string, reason: DropReason, error?: unknown): void {
    const slot = this.#slots.get(id);
    if (slot === undefined || slot.state !== "used") return;
    slot.error = error ??
      new HtxError(reason === "stalled" ? "TIMEOUT" : "PROTOCOL_ERROR", `Peer ${id}: ${reason}`);
    if (reason === "stalled" && ++slot.stallsInRow < MAX_STALLS) {
      // A fresh stream may do better; meanwhile others are asked.
      for (const line of [...slot.lines]) this.#lineDown(line, "TIMEOUT");
    } else {
      this.#leave(slot, reason === "stalled" || reason === "unreachable" ? "away" : "banned");
    }
    tell(this.#onPeerDropped, { peer: id, reason, ...(error === undefined ? {} : { error }) });
    this.#flush();
  }

  /** Begins to ask a peer. */
  #use(slot: Slot): void {
    slot.state = "used";
    slot.abort = new AbortController();
    slot.stallsInRow = 0;
    slot.fruitlessInRow = 0;
    slot.lastReached = this.#now();
    this.#engine.addPeer(slot.peer.id, this.#engineTime());
    for (let i = 0; i < this.#streamsPerPeer; i++) {
      const run = this.#run(slot, slot.abort.signal).finally(() => slot.running.delete(run));
      slot.running.add(run);
    }
  }

  /** Stops asking a peer. */
  #leave(slot: Slot, state: "away" | "banned"): void {
    slot.state = state;
    slot.abort.abort(new HtxError("CANCELLED", `Peer ${slot.peer.id} is no longer asked`));
    for (const line of [...slot.lines]) this.#lineDown(line, "CANCELLED");
    this.#engine.peerGone(slot.peer.id);
  }

  /** Keeps one stream to a peer open while something is wanted. */
  async #run(slot: Slot, signal: AbortSignal): Promise<void> {
    let delay = this.#reconnectDelayMs;
    while (!signal.aborted) {
      if (this.#wants.size === 0) {
        await raced(this.#demand.promise, signal).catch(() => {}); // which the loop looks at
        continue;
      }
      let stream;
      const overdue = new AbortController();
      try {
        stream = await this.#open(slot.peer, signal, overdue);
      } catch (error) {
        if (signal.aborted) return;
        slot.error = error;
        if (this.#isGone(slot, overdue.signal.aborted)) {
          this.#dropped(slot.peer.id, "unreachable", error);
          return;
        }
        // Half to all of the delay, so that many clients do not come back at once.
        await pause(delay * (0.5 + Math.random() /* jitter */ / 2), signal);
        delay = Math.min(2 * delay, MAX_RECONNECT_DELAY_MS);
        continue;
      }
      if (signal.aborted) {
        stream.reset("CANCELLED");
        return;
      }
      const before = this.#engine.stats(slot.peer.id)?.blocks ?? 0;
      const outcome = await this.#converse(slot, stream);
      if (outcome === "fruitful") slot.lastReached = this.#now();
      if (outcome === "fruitless") slot.fruitlessInRow++;
      if (signal.aborted) return;
      if (this.#wants.size === 0) continue;
      if (slot.fruitlessInRow >= this.#maxFruitless || (outcome !== "fruitful" && this.#isGone(slot))) {
        this.#dropped(slot.peer.id, "unreachable", slot.error);
        return;
      }
      const got = (this.#engine.stats(slot.peer.id)?.blocks ?? 0) > before;
      if (got) delay = this.#reconnectDelayMs;
      await pause(delay * (0.5 + Math.random() /* jitter */ / 2), signal);
      if (!got) delay = Math.min(2 * delay, MAX_RECONNECT_DELAY_MS);
    }
  }

  /** Opens a stream, unless that takes longer than a peer is tried to be reached: `overdue` aborts then. */
  async #open(peer: BitswapPeer, signal: AbortSignal, overdue: AbortController): Promise<BitswapStream> {
    const limit = this.#reconnectTimeoutMs;
    const timer = setTimeout(
      () => overdue.abort(new HtxError("TIMEOUT", `Cannot open stream to ${peer.id}: waited ${limit} ms`)),
      timerDelay(limit),
    );
    const end = AbortSignal.any([signal, overdue.signal]);
    try {
      const opening = peer.openStream(end);
      // Not every dialler looks at signals: what comes too late nobody reads.
      opening.then((stream) => end.aborted && stream.reset("CANCELLED"), () => {});
      return await raced(opening, end);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether a peer has answered nothing for too long, or says that it takes no such streams. */
  #isGone(slot: Slot, isOverdue = false): boolean {
    if (slot.lines.size > 0) return false;
    const refused = slot.error instanceof HtxError && slot.error.code === "REFUSED";
    return refused || isOverdue || this.#now() - slot.lastReached > this.#reconnectTimeoutMs;
  }

  /** Reads one stream to its end. */
  async #converse(slot: Slot, stream: BitswapStream): Promise<StreamOutcome> {
    const line: Line = {
      id: this.#nextLine++,
      stream,
      slot,
      since: this.#now(),
      writes: Promise.resolve(),
      headed: false,
      gave: false,
    };
    slot.lines.add(line);
    this.#lines.set(line.id, line);
    this.#engine.streamUp(line.id, slot.peer.id, this.#engineTime());
    this.#flush();
    const deframer = new MessageDeframer(MAX_MESSAGE_LENGTH);
    let answered = false;
    let isLost = false;
    try {
      for (;;) {
        const chunk = await stream.read();
        // What we ended ourselves has been judged.
        if (!this.#lines.has(line.id)) return "fruitful";
        if (chunk === null) break;
        this.#engine.progress(line.id, chunk.length, this.#engineTime());
        for (const message of deframer.push(chunk)) {
          answered = true;
          slot.lastReached = this.#now();
          slot.error = undefined;
          this.#receive(line, decodePieces(message));
        }
        this.#poll();
        while (this.#storing.size >= MAX_STORING) {
          await Promise.race([...this.#storing.values()].map(({ end }) => end));
        }
      }
      if (this.#closed !== undefined) return "fruitful";
      this.#lineDown(line, "CANCELLED");
    } catch (error) {
      if (!this.#lines.has(line.id)) return "fruitful";
      isLost = error instanceof HtxError && (error.code === "TRUNCATED" || error.code === "CLOSED");
      // Such a peer may go on to say what it has, but gives none of it.
      if (error instanceof HtxError && error.code === "EXCESSIVE_LOAD") answered = line.gave;
      const isBreach = error instanceof HtxError &&
        (error.code === "MALFORMED" || error.code === "LIMIT_EXCEEDED") && error.field !== undefined;
      this.#lineDown(line, isBreach ? "PROTOCOL_ERROR" : "CANCELLED");
      if (isBreach) this.#dropped(slot.peer.id, "protocol-error", error);
      else slot.error = error;
    } finally {
      this.#lineDown(line);
      this.#flush();
    }
    if (answered) slot.fruitlessInRow = 0;
    if (answered) return "fruitful";
    return isLost ? "lost" : "fruitless";
  }

  #lineDown(line: Line, reset?: "CANCELLED" | "TIMEOUT" | "PROTOCOL_ERROR"): void {
    if (!this.#lines.delete(line.id)) return;
    line.slot.lines.delete(line);
    // Silent or not: nothing may have been asked on it. One that took a stream and kept it is no peer out of reach.
    if (this.#now() - line.since >= this.#reconnectTimeoutMs) line.slot.lastReached = this.#now();
    this.#engine.streamDown(line.id);
    if (reset !== undefined) line.stream.reset(reset);
  }

  #receive(line: Line, message: BitswapMessage<Uint8Array[]>): void {
    const now = this.#engineTime();
    for (const { cid, type } of message.blockPresences) {
      const key = binaryCidKey(cid);
      if (key !== undefined) this.#engine.presence(line.id, key, type === "have", now);
    }
    for (const { prefix, data } of message.payload) {
      const hash = prefix.subarray(-2);
      this.#block(line, data, hash[0] === SHA2_256_CODE && hash[1] === SHA2_256_LENGTH);
    }
    // Bitswap 1.0: no prefix, sha2-256 meant.
    for (const data of message.blocks) this.#block(line, data, true);
  }

  #block(line: Line, pieces: readonly Uint8Array[], isSha256: boolean): void {
    const length = blockLength(pieces);
    // e-35: too long or of a foreign hash is wrong without looking; the rest is what its bytes hash to.
    const key = isSha256 && length <= MAX_BLOCK_LENGTH ? digestKey(sha256Of(pieces)) : undefined;
    const verdict = this.#engine.block(line.id, key, length, this.#engineTime());
    if (verdict !== "wanted" || key === undefined) return;
    line.gave = true;
    line.slot.stallsInRow = 0;
    line.slot.fruitlessInRow = 0;
    this.#averageBlock = this.#averageBlock === 0
      ? Math.max(1, length)
      : this.#averageBlock * 0.9 + length * 0.1;
    const want = this.#wants.get(key);
    if (want === undefined) return;
    this.#wants.delete(key);
    const peer = line.slot.peer.id;
    const deliver = (): void => {
      for (const sink of want.sinks) sink.block(new Block(sink.cid, pieces), peer);
    };
    const [first] = want.sinks;
    if (this.blockstore === undefined || first === undefined) return deliver();
    const fail = (error: unknown): void => {
      for (const sink of want.sinks) sink.fail(error);
    };
    try {
      const stored = VerifiedBlockstore._putHashed(this.blockstore, first.cid, pieces);
      if (stored === undefined) return deliver();
      const end = stored.finally(() => this.#storing.delete(key)).then(deliver, fail);
      this.#storing.set(key, { sinks: want.sinks, end });
    } catch (error) {
      fail(error);
    }
  }
}

function requireTrusted(cid: CID): void {
  if (!isTrustedCid(cid)) {
    throw new HtxError("UNSUPPORTED", `Cannot get block ${cid}: its hash is not sha2-256`);
  }
}

function requirePriority(priority: number | undefined): void {
  if (priority === undefined || priority === (priority | 0)) return;
  throw new RangeError(`Cannot get block: priority is ${priority}, must be a signed integer of 32 bits`);
}

/** Resolves after `ms`, or when the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

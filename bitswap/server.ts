/**
 * {@linkcode BitswapServer}: gives out the blocks of a store, and nothing but those. A want is answered from the
 * store or not at all: it never makes the server dial or fetch (e-36; this module cannot even name a peer).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Blockstore, type BlockstoreCallOptions, VerifiedBlockstore } from "./blockstore.ts";
import { blockKey, blockLength, type CID, parseCid, RAW_CODEC } from "./cid.ts";
import { deferred, HtxError, tell, toHex } from "./_core.ts";
import { type Ledger, LedgerBook, type LedgerEntry, type LedgerOptions } from "./ledger.ts";
import {
  type BlockPayload,
  type BlockPresence,
  type DecodedWantlist,
  decodePieces,
  encodeFramed,
  MAX_BLOCK_LENGTH,
  MAX_CID_LENGTH,
  MAX_MESSAGE_LENGTH,
  MAX_WANTS_PER_PEER,
  MessageDeframer,
  splitMessage,
  type WantlistEntry,
} from "./message.ts";
import { BITSWAP_PROTOCOL, type BitswapResetCode, type BitswapStream, readProtocol } from "./peer.ts";

/** Options of {@linkcode BitswapServer}. */
export interface BitswapServerOptions extends LedgerOptions {
  /** Where the blocks are; wrapped in a {@linkcode VerifiedBlockstore} unless it is one. @default {in memory} */
  readonly blockstore?: Blockstore | undefined;
  /**
   * Wants one peer may have open, over all its streams. At the limit no more is read of a stream before there is
   * room; a want that only waits for a block to come into the store is forgotten to make some.
   *
   * @default {1024}
   */
  readonly maxWantsPerPeer?: number | undefined;
  /** Longest message taken, in bytes. @default {4194304} */
  readonly maxMessageLength?: number | undefined;
  /**
   * Blocks read from the store ahead of the one being sent, per stream; none when 32 MiB of blocks wait for the peer to
   * read them.
   *
   * @default {4}
   */
  readonly readAhead?: number | undefined;
  /** Called with what the store throws. The block counts as absent for whoever asked. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Clock for the served-bytes limit, in ms. @default {Date.now} */
  readonly now?: (() => number) | undefined;
}

/** Default of {@linkcode BitswapServerOptions.readAhead}. */
export const DEFAULT_READ_AHEAD = 4;

/** Who is on the other side of a stream. */
export interface BitswapStreamInfo {
  /** Names the peer in ledgers and limits: its static key, say, or its address. @default {"anonymous"} */
  readonly peer?: string;
}

/** Where a server's streams come from, as with an `HtxConnection`. */
export interface IncomingStreams {
  /** Streams that the peer opens. */
  readonly incomingBidirectionalStreams: ReadableStream<BitswapStream>;
}

/** Small blocks are sent together up to about this size, in bytes. */
const BATCH_LENGTH = 64 * 1024;
/** Entries in one message beyond which it is no honest want-list any more. */
const MAX_ENTRIES_FACTOR = 4;
/** Longest messages of which one peer may have parts lie about, over all its streams. */
const MAX_BUFFERED_FACTOR = 4;
/** Answers that may wait before no more wants are read from the stream. */
const MAX_WAITING_ANSWERS = 4096;
/**
 * Bytes of blocks that may be read for one peer and not written yet, over all its streams, before a stream reads no
 * further ahead than the one block that it sends: who reads none of his streams would gather them all.
 */
const MAX_HELD_BYTES: number = 32 * 1024 * 1024;
/** What an entry of a want-list is taken to hold in memory besides its bytes, while it waits for room. */
const ENTRY_LENGTH = 256;

/**
 * Serves the blocks of a store to whoever opens streams.
 *
 * @example A server and a client in one process
 * ```ts
 * import { BitswapClient, BitswapServer, cidOf, streamOf } from "@betanet/htx/bitswap";
 * import { assertEquals } from "@std/assert";
 *
 * const server = new BitswapServer();
 * const cid = await server.put(new TextEncoder().encode("hello"));
 *
 * await using client = new BitswapClient({
 *   peers: [{
 *     id: "server",
 *     openStream() {
 *       const [there, back] = [new TransformStream<Uint8Array>(), new TransformStream<Uint8Array>()];
 *       void server.handleStream(streamOf({ readable: there.readable, writable: back.writable }));
 *       return Promise.resolve(streamOf({ readable: back.readable, writable: there.writable }));
 *     },
 *   }],
 * });
 * assertEquals(new TextDecoder().decode(await client.get(cid)), "hello");
 * ```
 */
export class BitswapServer {
  /** The blocks served. */
  readonly blockstore: VerifiedBlockstore;
  readonly #ledgers: LedgerBook;
  readonly #limits: StreamLimits;
  readonly #onError: (error: unknown) => void;
  readonly #now: () => number;
  /** Streams with a want for a block that is not there yet. */
  readonly #waiting = new Map<string, Set<StreamServer>>();

  /**
   * Makes a server. It listens nowhere: hand it connections or streams.
   *
   * @throws {RangeError} when a limit is not positive
   */
  constructor(options: BitswapServerOptions = {}) {
    const {
      blockstore,
      maxWantsPerPeer = MAX_WANTS_PER_PEER,
      maxMessageLength = MAX_MESSAGE_LENGTH,
      readAhead = DEFAULT_READ_AHEAD,
      onError,
      now = Date.now,
      ...ledgers
    } = options;
    for (const [name, value] of Object.entries({ maxWantsPerPeer, maxMessageLength, readAhead })) {
      if (!(value > 0)) throw new RangeError(`Cannot make Bitswap server: ${name} is ${value}`);
    }
    this.blockstore = VerifiedBlockstore.of(blockstore);
    this.#ledgers = new LedgerBook(ledgers);
    this.#limits = { maxWantsPerPeer, maxMessageLength, readAhead };
    this.#onError = (error) => tell(onError, error);
    this.#now = now;
  }

  /** What was exchanged with each peer that is remembered. */
  get ledgers(): Ledger[] {
    return this.#ledgers.all();
  }

  /** What was exchanged with one peer. */
  ledger(peer: string): Ledger | undefined {
    return this.#ledgers.get(peer);
  }

  /** Stores a block under the CID its bytes hash to, and sends it to whoever waits for it. */
  async put(
    bytes: Uint8Array,
    options: BlockstoreCallOptions & { codec?: number | undefined } = {},
  ): Promise<CID> {
    const { codec = RAW_CODEC, ...rest } = options;
    const cid = await this.blockstore.add(bytes, { codec, ...rest });
    this.notify(cid);
    return cid;
  }

  /** Says that a block has come into the store by another way than {@linkcode put}. */
  notify(cid: CID): void {
    const key = blockKey(cid);
    const streams = this.#waiting.get(key);
    if (streams === undefined) return;
    this.#waiting.delete(key);
    for (const stream of streams) stream.arrived(key);
  }

  /**
   * {@linkcode handleStream} in the shape that `serveStreams()` takes; the peer is named by its static key, in hex.
   */
  readonly onStream = (stream: BitswapStream, info: { readonly remoteStatic: Uint8Array }): Promise<void> =>
    this.handleStream(stream, { peer: toHex(info.remoteStatic) });

  /** Serves all streams of a connection until there come no more. */
  async handleConnection(connection: IncomingStreams, info: BitswapStreamInfo = {}): Promise<void> {
    const streams = new Set<Promise<void>>();
    try {
      for await (const stream of connection.incomingBidirectionalStreams) {
        const handled = this.handleStream(stream, info).finally(() => streams.delete(handled));
        streams.add(handled);
      }
    } catch {
      // The connection broke; its streams say so too.
    }
    await Promise.all(streams);
  }

  /**
   * Serves one stream until its end. Never rejects: whatever the peer does wrong ends its stream. A stream of
   * another protocol is reset with REFUSED.
   */
  async handleStream(stream: BitswapStream, info: BitswapStreamInfo = {}): Promise<void> {
    const ledger = this.#ledgers.open(info.peer ?? "anonymous", this.#now());
    ledger.streams++;
    try {
      const protocol = await readProtocol(stream);
      if (protocol?.id !== BITSWAP_PROTOCOL) {
        stream.reset("REFUSED");
        return;
      }
      const server = new StreamServer(stream, {
        store: this.blockstore,
        ledger,
        limits: this.#limits,
        waiting: this.#waiting,
        onError: this.#onError,
        take: (bytes) => this.#ledgers.take(ledger, bytes, this.#now()),
      });
      await server.run(protocol.rest);
    } catch (error) {
      stream.reset(codeFor(error));
    } finally {
      ledger.streams--;
    }
  }
}

function codeFor(error: unknown): BitswapResetCode {
  if (!(error instanceof HtxError)) return "INTERNAL_ERROR";
  if (error.code === "LIMIT_EXCEEDED" || error.code === "EXCESSIVE_LOAD") return "EXCESSIVE_LOAD";
  return error.code === "MALFORMED" ? "PROTOCOL_ERROR" : "CANCELLED";
}

interface StreamLimits {
  readonly maxWantsPerPeer: number;
  readonly maxMessageLength: number;
  readonly readAhead: number;
}

interface StreamContext {
  readonly store: VerifiedBlockstore;
  readonly ledger: LedgerEntry;
  readonly limits: StreamLimits;
  readonly waiting: Map<string, Set<StreamServer>>;
  /** Hears of what the store throws; never throws itself. */
  readonly onError: (error: unknown) => void;
  /** Takes bytes from what the peer may still have. */
  readonly take: (bytes: number) => boolean;
}

type Pieces = readonly Uint8Array[] | undefined;

interface Task {
  readonly key: string;
  readonly cid: CID;
  readonly bytes: Uint8Array;
  readonly priority: number;
  readonly sendDontHave: boolean;
  cancelled: boolean;
  /** Whether it was queued anew because the store said that it has what it had just not given. */
  rechecked: boolean;
}

interface Load {
  readonly task: Task;
  /** Never rejects: what cannot be read is absent. */
  readonly result: Pieces | Promise<Pieces>;
  /** What it counts for against {@linkcode MAX_HELD_BYTES}: the longest block until the length is known. */
  held: number;
  settled: boolean;
  failed: boolean;
}

/** Blocks to send, by priority and then in the order asked. */
class TaskQueue {
  readonly #levels: { readonly priority: number; readonly tasks: Map<string, Task> }[] = [];

  add(task: Task): void {
    let i = 0;
    while (i < this.#levels.length && this.#levels[i]!.priority > task.priority) i++;
    if (this.#levels[i]?.priority !== task.priority) {
      this.#levels.splice(i, 0, { priority: task.priority, tasks: new Map() });
    }
    this.#levels[i]!.tasks.set(task.key, task);
  }

  delete(task: Task): void {
    const i = this.#levels.findIndex(({ priority }) => priority === task.priority);
    if (i < 0) return;
    const { tasks } = this.#levels[i]!;
    if (tasks.get(task.key) === task) tasks.delete(task.key);
    if (tasks.size === 0) this.#levels.splice(i, 1);
  }

  next(): Task | undefined {
    const level = this.#levels[0];
    if (level === undefined) return undefined;
    for (const task of level.tasks.values()) {
      this.delete(task);
      return task;
    }
    return undefined;
  }
}

/** One stream: a reader that takes wants in, and a sender that works them off. */
class StreamServer {
  readonly #stream: BitswapStream;
  readonly #context: StreamContext;
  readonly #queue = new TaskQueue();
  /** Every want of this stream that counts against the peer's limit. */
  readonly #open = new Map<string, Task>();
  readonly #loads: Load[] = [];
  #presences: BlockPresence[] = [];
  /** Answers of a store that takes its time. */
  #asking = 0;
  /** Bytes held of the message that is not complete. */
  #buffered = 0;
  /** Bytes of blocks read and not written yet. */
  #held = 0;
  #ended = false;
  #broken = false;
  /** The peer has had all the bytes it may have: it is answered no more. */
  #exhausted = false;
  #sentBlocks = false;
  #wake: PromiseWithResolvers<void> | undefined;
  #drained: PromiseWithResolvers<void> | undefined;

  constructor(stream: BitswapStream, context: StreamContext) {
    this.#stream = stream;
    this.#context = context;
  }

  async run(rest: Uint8Array): Promise<void> {
    const sending = this.#send();
    // Awaited below; until then the reader must hear of it, and the peer, who would wait for answers.
    sending.catch((error) => {
      this.#break();
      this.#stream.reset(codeFor(error));
    });
    try {
      await this.#receive(rest);
      await sending;
      if (!this.#exhausted) await this.#stream.closeWrite();
    } finally {
      this.#break();
      await sending.catch(() => {});
    }
  }

  /** A block that was waited for is in the store now. */
  arrived(key: string): void {
    const task = this.#open.get(key);
    if (task === undefined) return;
    this.#context.ledger.idle.delete(task);
    task.rechecked = false;
    this.#queue.add(task);
    this.#notify();
  }

  #break(): void {
    this.#broken = true;
    this.#context.ledger.buffered -= this.#buffered;
    this.#buffered = 0;
    this.#context.ledger.held -= this.#held;
    this.#held = 0;
    for (const task of this.#open.values()) this.#close(task);
    this.#notify();
    this.#drained?.resolve();
    this.#makeRoom();
  }

  #notify(): void {
    this.#wake?.resolve();
    this.#wake = undefined;
  }

  async #receive(rest: Uint8Array): Promise<void> {
    const { maxMessageLength } = this.#context.limits;
    const deframer = new MessageDeframer(maxMessageLength);
    let chunk: Uint8Array | null = rest;
    while (chunk !== null) {
      // The messages that end in this chunk are part of what was held before and of the chunk itself.
      const held = this.#buffered + chunk.length;
      for (const message of deframer.push(chunk)) {
        this.#context.ledger.messages++;
        await this.#apply(decodePieces(message).wantlist, held);
        if (this.#broken) return;
      }
      this.#account(deframer.buffered);
      while (this.#presences.length > MAX_WAITING_ANSWERS && !this.#broken) {
        await (this.#drained ??= deferred<void>()).promise;
      }
      if (this.#broken) return;
      chunk = await this.#stream.read();
    }
    if (deframer.pending) {
      throw new HtxError("MALFORMED", "Cannot read Bitswap message: the stream ended in it", {
        field: "bitswap message",
      });
    }
    this.#ended = true;
    // Nobody will say again that these are wanted, nor wait for them.
    for (const task of this.#open.values()) if (this.#unwait(task)) this.#close(task);
    this.#notify();
  }

  /** Keeps count of what is held of unfinished messages, so that many streams cannot hold many times the limit. */
  #account(buffered: number): void {
    const { ledger, limits } = this.#context;
    ledger.buffered += buffered - this.#buffered;
    this.#buffered = buffered;
    if (ledger.buffered > MAX_BUFFERED_FACTOR * limits.maxMessageLength) {
      throw new HtxError("LIMIT_EXCEEDED", "Cannot read Bitswap message: too many are unfinished", {
        field: "bitswap message",
      });
    }
  }

  async #apply(wantlist: DecodedWantlist | undefined, held: number): Promise<void> {
    if (wantlist === undefined) return;
    const { entries, full } = wantlist;
    // A peer knows the limit of the protocol, not a lower one of ours: beyond that its wants wait for room.
    const limit = MAX_ENTRIES_FACTOR * Math.max(this.#context.limits.maxWantsPerPeer, MAX_WANTS_PER_PEER);
    if (entries.length > limit) {
      throw new HtxError(
        "LIMIT_EXCEEDED",
        `Cannot take want-list: it has ${entries.length} entries, limit is ${limit}`,
        { field: "wantlist" },
      );
    }
    if (full) { for (const task of this.#open.values()) this.#close(task); }
    for (const entry of entries) {
      while (!this.#entry(entry)) {
        this.#notify();
        this.#account(held + ENTRY_LENGTH * entries.length);
        const { ledger } = this.#context;
        await (ledger.room ??= deferred<void>()).promise;
        if (this.#broken) return;
      }
    }
    this.#notify();
  }

  /** Takes an entry in; false when there is no room for it now. */
  #entry(entry: Required<WantlistEntry>): boolean {
    if (this.#exhausted) return true;
    // A copy: a want outlives its message, which may be the longest there is for that one want.
    const bytes = entry.cid.slice(0, MAX_CID_LENGTH);
    const cid = entry.cid.length > MAX_CID_LENGTH ? undefined : wantedCid(bytes);
    if (cid === undefined) {
      // Not a name we could have a block for.
      if (!entry.cancel && entry.sendDontHave) this.#say(bytes, "dont-have");
      return true;
    }
    const key = blockKey(cid);
    const old = this.#open.get(key);
    if (old !== undefined && (entry.cancel || entry.wantType === "block")) this.#close(old);
    if (entry.cancel) return true;
    if (!this.#hasRoom()) return false;
    if (entry.wantType === "have") {
      this.#answerHave(cid, bytes, entry.sendDontHave);
      return true;
    }
    const task: Task = {
      key,
      cid,
      bytes,
      priority: entry.priority,
      sendDontHave: entry.sendDontHave,
      cancelled: false,
      rechecked: false,
    };
    this.#open.set(key, task);
    this.#context.ledger.wants++;
    this.#queue.add(task);
    return true;
  }

  #answerHave(cid: CID, bytes: Uint8Array, sendDontHave: boolean): void {
    const { ledger, store, onError } = this.#context;
    const answer = (has: boolean): void => {
      if (has) this.#say(bytes, "have");
      else if (sendDontHave) this.#say(bytes, "dont-have");
    };
    let has;
    try {
      has = store.has(cid);
    } catch (error) {
      onError(error);
      has = false;
    }
    if (typeof has === "boolean") {
      answer(has);
      return;
    }
    // It counts as an open want while the store looks.
    ledger.wants++;
    this.#asking++;
    has.then(answer, (error) => {
      onError(error);
      answer(false);
    }).finally(() => {
      ledger.wants--;
      this.#makeRoom();
      this.#asking--;
      this.#notify();
    });
  }

  /**
   * Whether one more want may be open. One that only waits for a block to come gives way: it would keep the place for
   * as long as it likes, and the cancel that ends it might be what we no longer read.
   */
  #hasRoom(): boolean {
    const { ledger, limits } = this.#context;
    if (ledger.wants < limits.maxWantsPerPeer) return true;
    const [forget] = ledger.idle.values();
    if (forget === undefined) return false;
    ledger.refused++;
    forget();
    return true;
  }

  /** Wakes the peer's streams that wait for room. */
  #makeRoom(): void {
    const { ledger } = this.#context;
    ledger.room?.resolve();
    ledger.room = undefined;
  }

  #say(cid: Uint8Array, type: BlockPresence["type"]): void {
    if (this.#broken || this.#exhausted) return;
    if (type === "have") this.#context.ledger.haves++;
    else this.#context.ledger.dontHaves++;
    this.#presences.push({ cid, type });
  }

  /** Ends a want, however it ended. */
  #close(task: Task): void {
    if (this.#open.get(task.key) !== task) return;
    this.#open.delete(task.key);
    this.#context.ledger.wants--;
    this.#makeRoom();
    task.cancelled = true;
    this.#queue.delete(task);
    this.#unwait(task);
  }

  #wait(task: Task): void {
    const { waiting, ledger } = this.#context;
    const streams = waiting.get(task.key) ?? new Set();
    waiting.set(task.key, streams.add(this));
    ledger.idle.set(task, () => this.#close(task));
    // It gives way to whoever waits for room.
    this.#makeRoom();
  }

  async #recheck(task: Task): Promise<void> {
    try {
      if (!await this.#context.store.has(task.cid) || !this.#unwait(task)) return;
      this.arrived(task.key);
      task.rechecked = true;
    } catch (error) {
      this.#context.onError(error);
    }
  }

  #unwait(task: Task): boolean {
    const { waiting, ledger } = this.#context;
    ledger.idle.delete(task);
    const streams = waiting.get(task.key);
    if (!streams?.delete(this)) return false;
    if (streams.size === 0) waiting.delete(task.key);
    return true;
  }

  /** Sends until the reader has ended and everything it asked for is answered. */
  async #send(): Promise<void> {
    while (!this.#broken) {
      this.#load();
      if (this.#loads.length === 0 && this.#presences.length === 0) {
        if (this.#ended && this.#asking === 0) return;
        await (this.#wake ??= deferred<void>()).promise;
        continue;
      }
      const blockPresences = this.#presences;
      this.#presences = [];
      const payload: BlockPayload<readonly Uint8Array[]>[] = [];
      let length = 0;
      let held = 0;
      while (this.#loads.length > 0 && length < BATCH_LENGTH) {
        const load = this.#loads[0]!;
        // A slow store holds up nothing that could be said now.
        if (!load.settled && (payload.length > 0 || blockPresences.length > 0)) break;
        const pieces = await load.result;
        this.#loads.shift();
        held += load.held;
        length += this.#answer(load, pieces, payload);
        if (this.#exhausted) break;
        this.#load();
      }
      await this.#write(blockPresences, payload);
      this.#hold(-held);
      this.#sentBlocks ||= payload.length > 0;
      if (this.#exhausted) return await this.#endExhausted();
      this.#drained?.resolve();
      this.#drained = undefined;
    }
  }

  /** Starts reading blocks: one where the store answers at once, several where it takes its time. */
  #load(): void {
    const { limits, ledger } = this.#context;
    while (this.#loads.length < limits.readAhead) {
      if (this.#held > 0 && ledger.held >= MAX_HELD_BYTES) return;
      if (this.#loads.some(({ result }) => !(result instanceof Promise))) return;
      const task = this.#queue.next();
      if (task === undefined) return;
      this.#loads.push(this.#read(task));
    }
  }

  #read(task: Task): Load {
    const { store, onError } = this.#context;
    const load = (result: Load["result"], held: number): Load => {
      this.#hold(held);
      return { task, result, held, settled: !(result instanceof Promise), failed: false };
    };
    try {
      const result = VerifiedBlockstore._readToSend(store, task.cid);
      if (!(result instanceof Promise)) {
        const pieces = sendable(result);
        return load(pieces, lengthOf(pieces));
      }
      const settle = (found: Pieces): Pieces => {
        const pieces = sendable(found);
        this.#hold(lengthOf(pieces) - loading.held);
        loading.held = lengthOf(pieces);
        loading.settled = true;
        this.#notify();
        return pieces;
      };
      const fail = (error: unknown): Pieces => {
        loading.failed = true;
        onError(error);
        return settle(undefined);
      };
      const loading = load(result.then(settle, fail), MAX_BLOCK_LENGTH);
      return loading;
    } catch (error) {
      onError(error);
      return { ...load(undefined, 0), failed: true };
    }
  }

  /** Keeps count of what is held of blocks; a broken stream holds nothing. */
  #hold(bytes: number): void {
    if (this.#broken) return;
    this.#held += bytes;
    this.#context.ledger.held += bytes;
  }

  /**
   * Ends a stream whose peer may have no more. What was sent on it must not be lost in a reset, so the first such
   * stream only ends; on the next ones the peer hears why.
   */
  async #endExhausted(): Promise<void> {
    if (!this.#sentBlocks) {
      throw new HtxError("EXCESSIVE_LOAD", "Cannot send block: the peer has had all it may have for now");
    }
    for (const task of this.#open.values()) this.#close(task);
    this.#loads.length = 0;
    await this.#stream.closeWrite();
  }

  /** Turns what was read into an answer; gives the bytes it adds to the message. */
  #answer(load: Load, pieces: Pieces, payload: BlockPayload<readonly Uint8Array[]>[]): number {
    const { task } = load;
    if (task.cancelled) return 0;
    const { ledger, take } = this.#context;
    if (pieces === undefined) {
      if (!task.sendDontHave && !this.#ended) {
        // Bitswap keeps such a want: should the block come into the store, it is sent.
        this.#wait(task);
        // It may have come between the reading and the waiting. One that the store has, or says it has, and does not
        // give would be read again at once, for ever: it is when it is put anew.
        if (!load.failed && !task.rechecked) void this.#recheck(task);
        return 0;
      }
      this.#close(task);
      if (task.sendDontHave) this.#say(task.bytes, "dont-have");
      return 0;
    }
    this.#close(task);
    const length = blockLength(pieces);
    if (!take(length)) {
      ledger.refused++;
      // The block is here: "dont-have" would make the requester report it as missing.
      this.#exhausted = true;
      return 0;
    }
    ledger.blocksSent++;
    ledger.bytesSent += length;
    payload.push({ prefix: prefixOf(task.cid), data: pieces });
    return length;
  }

  async #write(
    blockPresences: BlockPresence[],
    payload: BlockPayload<readonly Uint8Array[]>[],
  ): Promise<void> {
    for (const message of splitMessage({ blockPresences, payload })) {
      // All at once, so that head and block can leave together; back-pressure is awaited at the end. What a write throws
      // must not leave the ones before it without anyone who hears of their failure.
      await Promise.all(encodeFramed(message).map(async (piece) => await this.#stream.write(piece)));
    }
  }
}

function lengthOf(pieces: Pieces): number {
  return pieces === undefined ? 0 : blockLength(pieces);
}

/** A store may keep longer blocks than the exchange takes (HTX 1.1 §7): here they are absent. */
function sendable(pieces: Pieces): Pieces {
  return pieces === undefined || blockLength(pieces) > MAX_BLOCK_LENGTH ? undefined : pieces;
}

/** The CID of a want, if it is one that can name a block here. */
function wantedCid(bytes: Uint8Array): CID | undefined {
  try {
    return parseCid(bytes);
  } catch {
    return undefined;
  }
}

/** All of a CID but the digest. */
function prefixOf(cid: CID): Uint8Array {
  if (cid.version === 0) return V0_PREFIX;
  return cid.bytes.subarray(0, cid.bytes.length - cid.multihash.digest.length);
}

// A version 0 CID has no prefix of its own: what it stands for is version 0, dag-pb, sha2-256, 32 bytes.
const V0_PREFIX = /* @__PURE__ */ new Uint8Array([0, 0x70, 0x12, 0x20]);

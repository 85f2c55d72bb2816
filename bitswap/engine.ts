/**
 * What a requester asks of whom: wants in, commands out, no I/O and no clock of its own.
 *
 * Each want is asked as want-block of one peer at a time and as want-have of the others, so a block is downloaded
 * once, and whoever has it is known when it must be asked elsewhere. Who answers faster empties its window faster
 * and so gets more of the work. A peer starts with a small window and earns more with each good block; one that
 * lies or stalls is dropped, and its wants move.
 *
 *     waiting ──ask──► assigned to one stream ──right block──► done
 *        ▲                     │
 *        └── dont-have, lost stream, wrong block, stolen by an idle peer, stalled
 *
 * Invariant: for each peer with a stream a want either stands in that peer's `toAsk` or has an answer of that peer. Without
 * a stream nothing is kept for a peer to be asked: it may be out of reach for ever while others give what is wanted.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { MAX_MESSAGE_LENGTH, MAX_WANTS_PER_PEER, type WantlistEntry } from "./message.ts";

/** Why a peer is no longer asked. */
export type DropReason = "wrong-blocks" | "stalled" | "protocol-error" | "unreachable";

/** Options of {@linkcode WantEngine}. */
export interface WantEngineOptions {
  /** Wants open with one peer at most, want-haves included (HTX 1.1 §7). @default {1024} */
  readonly maxWantsPerPeer?: number | undefined;
  /** Bytes of blocks asked of one peer and not here yet, at most, as far as sizes can be guessed. @default {8388608} */
  readonly maxOutstandingBytes?: number | undefined;
  /** Wrong blocks after which a peer is dropped (HTX 1.1 §7). @default {3} */
  readonly maxWrongBlocks?: number | undefined;
  /**
   * Time without progress after which a peer that owes something is dropped, in ms. A block that a peer at work has
   * owed for so long may be asked of an idle one, too.
   *
   * @default {10000}
   */
  readonly stallTimeoutMs?: number | undefined;
  /** Age from which on an idle peer takes over what a slower one owes, in ms. @default {1000} */
  readonly stealAfterMs?: number | undefined;
}

/** Default of {@linkcode WantEngineOptions.maxOutstandingBytes}. */
export const DEFAULT_OUTSTANDING_BYTES: number = 8 * 1024 * 1024;
/** Default of {@linkcode WantEngineOptions.maxWrongBlocks}. */
export const DEFAULT_MAX_WRONG_BLOCKS = 3;
/** Default of {@linkcode WantEngineOptions.stallTimeoutMs}. */
export const DEFAULT_STALL_TIMEOUT_MS = 10_000;
/** Default of {@linkcode WantEngineOptions.stealAfterMs}. */
export const DEFAULT_STEAL_AFTER_MS = 1_000;

/** Blocks asked of a peer that has not shown anything yet. */
const FIRST_WINDOW = 4;
/** Bounds of the window once the size of blocks is known. */
const MIN_WINDOW = 8;
const MAX_WINDOW = 512;
/** Want-haves a peer may have open: how far ahead of the blocks we look for who has what. */
const ASK_AHEAD = 256;
/** Bytes that count as progress before a block is complete: fewer could keep a dead peer alive for ever. */
const PROGRESS_BYTES = 16 * 1024;
/** Bytes of a stream that count as progress without a right block among them: those of two messages of the longest. */
const MAX_FRUITLESS_BYTES: number = 2 * MAX_MESSAGE_LENGTH;
/** One want in a hundred may be taken over from a peer that is slow but at work: bounds duplicates. */
const BLOCKS_PER_STEAL = 100;
/** Wants asked no more that are remembered per stream: their blocks may still come, and are no lies. */
const MAX_LATE = 4096;

/** What is known of a peer. */
export interface PeerStats {
  /** Name of the peer. */
  readonly peer: string;
  /** Blocks received, right and wanted. */
  blocks: number;
  /** Bytes of those blocks. */
  bytes: number;
  /** Right blocks that were here already. */
  duplicates: number;
  /** Bytes of those blocks. */
  duplicateBytes: number;
  /** Blocks that hash to nothing we asked for. */
  wrongBlocks: number;
  /** Presences `have`. */
  haves: number;
  /** Presences `dont-have`. */
  dontHaves: number;
  /** Times the peer was dropped for stalling. */
  stalls: number;
}

/** What the shell is to do. */
export type EngineCommand =
  /** Send these entries on this stream. */
  | { readonly type: "send"; readonly stream: number; readonly entries: readonly WantlistEntry[] }
  /** Reset all streams of the peer; then tell {@linkcode WantEngine.streamDown} or `peerGone`. */
  | { readonly type: "drop"; readonly peer: string; readonly reason: DropReason }
  /** Nobody has it. The want is forgotten. */
  | { readonly type: "missing"; readonly key: string };

/** What a block that arrived turned out to be. */
export type BlockVerdict = "wanted" | "duplicate" | "wrong";

type Answer = "asked-have" | "asked-block" | "have" | "dont-have" | "failed";

interface Want {
  readonly key: string;
  readonly cid: Uint8Array;
  readonly priority: number;
  readonly answers: Map<Peer, Answer>;
  stream: Stream | undefined;
  askedAt: number;
}

interface Stream {
  readonly id: number;
  readonly peer: Peer;
  readonly assigned: Map<string, Want>;
  /**
   * How often a want that was asked is asked no more, for it was taken back or is not there: so many blocks of it may
   * still come. Some peers keep a want after their `dont-have`, and send the block when they have it.
   */
  readonly late: Map<string, number>;
  outbox: WantlistEntry[];
  wrong: number;
}

interface Peer {
  readonly stats: PeerStats;
  readonly streams: Stream[];
  toAsk: Lane;
  readonly ready: Lane;
  /** Want-haves without an answer, and the stream each went out on. */
  readonly asking: Map<string, Stream>;
  assigned: number;
  window: number;
  averageBlock: number;
  lastProgress: number;
  progressBytes: number;
  /** Bytes since the last right block. */
  fruitlessBytes: number;
  dropped: boolean;
}

/** Wants in order of priority, then of arrival; what is no longer valid is stepped over when it is reached. */
class Lane {
  readonly #levels: { readonly priority: number; items: Want[]; at: number }[] = [];

  push(want: Want): void {
    const { priority } = want;
    let i = 0;
    while (i < this.#levels.length && this.#levels[i]!.priority > priority) i++;
    if (this.#levels[i]?.priority !== priority) this.#levels.splice(i, 0, { priority, items: [], at: 0 });
    this.#levels[i]!.items.push(want);
  }

  /** The first valid want, left in place; those before it are dropped. */
  peek(valid: (want: Want) => boolean): Want | undefined {
    while (this.#levels.length > 0) {
      const level = this.#levels[0]!;
      for (; level.at < level.items.length; level.at++) {
        const want = level.items[level.at]!;
        if (valid(want)) return want;
      }
      this.#levels.shift();
    }
    return undefined;
  }

  /** Removes what {@linkcode peek} gave. */
  shift(): void {
    const level = this.#levels[0]!;
    level.at++;
    if (level.at > 1024 && 2 * level.at > level.items.length) {
      level.items = level.items.slice(level.at);
      level.at = 0;
    }
  }
}

/**
 * The requester's side of Bitswap as a state machine. Feed it what happens, then {@linkcode poll} it for what to
 * do; times are in ms on any clock that does not go back.
 */
export class WantEngine {
  readonly #maxWants: number;
  readonly #maxOutstandingBytes: number;
  readonly #maxWrong: number;
  readonly #stallTimeoutMs: number;
  readonly #stealAfterMs: number;
  readonly #wants = new Map<string, Want>();
  readonly #peers = new Map<string, Peer>();
  readonly #streams = new Map<number, Stream>();
  #commands: EngineCommand[] = [];
  #blocks = 0;
  #steals = 0;

  /**
   * Makes an engine without peers or wants.
   *
   * @throws {RangeError} when an option is not positive
   */
  constructor(options: WantEngineOptions = {}) {
    const {
      maxWantsPerPeer = MAX_WANTS_PER_PEER,
      maxOutstandingBytes = DEFAULT_OUTSTANDING_BYTES,
      maxWrongBlocks = DEFAULT_MAX_WRONG_BLOCKS,
      stallTimeoutMs = DEFAULT_STALL_TIMEOUT_MS,
      stealAfterMs = DEFAULT_STEAL_AFTER_MS,
    } = options;
    for (
      const [name, value] of Object.entries({
        maxWantsPerPeer,
        maxOutstandingBytes,
        maxWrongBlocks,
        stallTimeoutMs,
        stealAfterMs,
      })
    ) if (!(value > 0)) throw new RangeError(`Cannot make want engine: ${name} is ${value}`);
    this.#maxWants = maxWantsPerPeer;
    this.#maxOutstandingBytes = maxOutstandingBytes;
    this.#maxWrong = maxWrongBlocks;
    this.#stallTimeoutMs = stallTimeoutMs;
    this.#stealAfterMs = stealAfterMs;
  }

  /** Wants that are neither here nor missing. */
  get pending(): number {
    return this.#wants.size;
  }

  /** Peers that may still answer. */
  get peers(): number {
    return this.#peers.size;
  }

  /** Figures of one peer. */
  stats(peer: string): Readonly<PeerStats> | undefined {
    return this.#peers.get(peer)?.stats;
  }

  /** Adds a peer; nothing is asked of it before it has a stream. */
  addPeer(id: string, now: number): void {
    if (this.#peers.has(id)) throw new TypeError(`Cannot add peer: ${id} is there already`);
    const peer: Peer = {
      stats: {
        peer: id,
        blocks: 0,
        bytes: 0,
        duplicates: 0,
        duplicateBytes: 0,
        wrongBlocks: 0,
        haves: 0,
        dontHaves: 0,
        stalls: 0,
      },
      streams: [],
      toAsk: new Lane(),
      ready: new Lane(),
      asking: new Map(),
      assigned: 0,
      window: FIRST_WINDOW,
      averageBlock: 0,
      lastProgress: now,
      progressBytes: 0,
      fruitlessBytes: 0,
      dropped: false,
    };
    this.#peers.set(id, peer);
  }

  /** Forgets a peer for good. */
  peerGone(id: string): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    for (const stream of [...peer.streams]) this.streamDown(stream.id);
    this.#peers.delete(id);
    for (const want of [...this.#wants.values()]) {
      want.answers.delete(peer);
      this.#settle(want);
    }
  }

  /** A stream to the peer is open. */
  streamUp(id: number, peerId: string, now: number): void {
    const peer = this.#peers.get(peerId);
    if (peer === undefined) throw new TypeError(`Cannot add stream: no peer ${peerId}`);
    const stream: Stream = { id, peer, assigned: new Map(), late: new Map(), outbox: [], wrong: 0 };
    if (peer.streams.length === 0) {
      peer.dropped = false;
      peer.lastProgress = now;
      peer.fruitlessBytes = 0;
      peer.toAsk = new Lane();
      for (const want of this.#wants.values()) {
        // After a break the peer may have other blocks than before: what it did not have is asked again.
        if (want.answers.get(peer) === "dont-have") want.answers.delete(peer);
        if (!want.answers.has(peer)) peer.toAsk.push(want);
      }
    }
    peer.streams.push(stream);
    this.#streams.set(id, stream);
  }

  /** A stream is gone; what was asked on it is asked again, of whoever. */
  streamDown(id: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    const { peer } = stream;
    this.#streams.delete(id);
    peer.streams.splice(peer.streams.indexOf(stream), 1);
    for (const [key, asked] of peer.asking) {
      if (asked !== stream) continue;
      peer.asking.delete(key);
      const want = this.#wants.get(key);
      if (want !== undefined) this.#askAgain(want, peer);
    }
    for (const want of [...stream.assigned.values()]) {
      this.#unassign(want);
      this.#askAgain(want, peer);
      this.#offer(want);
    }
    if (peer.streams.length > 0) return;
    peer.toAsk = new Lane();
    peer.window = Math.min(peer.window, FIRST_WINDOW);
  }

  /** Wants a block. Wanting twice is wanting once. */
  want(key: string, cid: Uint8Array, priority = 1): void {
    if (this.#wants.has(key)) return;
    const want: Want = { key, cid, priority, answers: new Map(), stream: undefined, askedAt: 0 };
    this.#wants.set(key, want);
    for (const peer of this.#peers.values()) if (peer.streams.length > 0) peer.toAsk.push(want);
    this.#settle(want);
  }

  /** Takes a want back. */
  cancel(key: string): void {
    const want = this.#wants.get(key);
    if (want === undefined) return;
    this.#forget(want);
  }

  /** A peer said whether it has a block. */
  presence(streamId: number, key: string, has: boolean, now: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    const { peer } = stream;
    if (has) peer.stats.haves++;
    else peer.stats.dontHaves++;
    if (peer.assigned === 0) peer.lastProgress = now;
    const want = this.#wants.get(key);
    const before = want?.answers.get(peer);
    const isAsked = peer.asking.delete(key) || (before === "asked-block" && want?.stream?.peer === peer);
    if (!has && isAsked) mayComeLate(stream, key);
    if (want === undefined || before === undefined) return;
    if (before === "asked-have") {
      want.answers.set(peer, has ? "have" : "dont-have");
      if (has && want.stream === undefined) peer.ready.push(want);
    } else if (!has && (before === "have" || (before === "asked-block" && want.stream?.peer === peer))) {
      // It said `have` before, or was asked for the block: now it has not.
      if (want.stream?.peer === peer) this.#unassign(want);
      want.answers.set(peer, "dont-have");
      this.#offer(want);
    }
    this.#settle(want);
  }

  /** Bytes arrived on a stream. */
  progress(streamId: number, bytes: number, now: number): void {
    const peer = this.#streams.get(streamId)?.peer;
    if (peer === undefined) return;
    peer.progressBytes += bytes;
    peer.fruitlessBytes += bytes;
    if (peer.progressBytes < PROGRESS_BYTES) return;
    if (peer.fruitlessBytes > MAX_FRUITLESS_BYTES * peer.streams.length) return;
    peer.progressBytes = 0;
    peer.lastProgress = now;
  }

  /**
   * A block arrived whose bytes hash to `key` (`undefined`: too long or of a foreign hash, so not hashed at all).
   * Only `"wanted"` blocks may be handed on.
   */
  block(streamId: number, key: string | undefined, length: number, now: number): BlockVerdict {
    const stream = this.#streams.get(streamId);
    const want = key === undefined ? undefined : this.#wants.get(key);
    if (stream === undefined) {
      // The stream was given up meanwhile; a right block is right all the same.
      if (want === undefined) return "duplicate";
      this.#done(want, undefined);
      return "wanted";
    }
    const { peer } = stream;
    // A peer may answer a want-have with the block.
    const isAnswer = key !== undefined && peer.asking.get(key) === stream && peer.asking.delete(key);
    if (want === undefined) {
      if (key !== undefined && (isAnswer || cameLate(stream, key))) {
        peer.stats.duplicates++;
        peer.stats.duplicateBytes += length;
        return "duplicate";
      }
      this.#wrong(stream);
      return "wrong";
    }
    if (want.stream !== stream && !isAnswer) cameLate(stream, want.key); // the answer to an earlier asking
    peer.stats.blocks++;
    peer.stats.bytes += length;
    peer.lastProgress = now;
    peer.progressBytes = 0;
    peer.fruitlessBytes = 0;
    peer.averageBlock += (length - peer.averageBlock) / Math.min(peer.stats.blocks, 16);
    const cap = Math.floor(this.#maxOutstandingBytes / Math.max(1, peer.averageBlock));
    peer.window = Math.min(peer.window + 1, Math.max(MIN_WINDOW, Math.min(MAX_WINDOW, cap)));
    this.#done(want, stream);
    return "wanted";
  }

  /** Settles what depends on time. Call it now and then while {@linkcode pending} is not 0. */
  tick(now: number): void {
    for (const peer of this.#peers.values()) {
      if (peer.dropped || peer.streams.length === 0 || !owes(peer)) continue;
      if (now - peer.lastProgress < this.#stallTimeoutMs) continue;
      peer.stats.stalls++;
      this.#drop(peer, "stalled");
    }
    for (const peer of this.#peers.values()) this.#steal(peer, now);
  }

  /** What is to be done now. */
  poll(now: number): EngineCommand[] {
    const peers = [...this.#peers.values()].filter((peer) => !peer.dropped && peer.streams.length > 0);
    peers.sort((a, b) => a.assigned / a.window - b.assigned / b.window);
    for (const peer of peers) this.#fill(peer, now);
    for (const stream of this.#streams.values()) {
      if (stream.outbox.length === 0) continue;
      this.#commands.push({ type: "send", stream: stream.id, entries: stream.outbox });
      stream.outbox = [];
    }
    const commands = this.#commands;
    this.#commands = [];
    return commands;
  }

  /** Asks as much of a peer as its window and the limit on wants allow. */
  #fill(peer: Peer, now: number): void {
    const isReady = (want: Want): boolean =>
      want.stream === undefined && want.answers.get(peer) === "have" && this.#wants.get(want.key) === want;
    const isUnasked = (want: Want): boolean => !want.answers.has(peer) && this.#wants.get(want.key) === want;
    while (peer.assigned + peer.asking.size < this.#maxWants) {
      const room = peer.assigned < peer.window;
      const ready = room ? peer.ready.peek(isReady) : undefined;
      if (ready !== undefined) {
        peer.ready.shift();
        this.#assign(ready, peer, now);
        continue;
      }
      const unasked = peer.toAsk.peek(isUnasked);
      if (unasked === undefined) return;
      if (room && unasked.stream === undefined) {
        peer.toAsk.shift();
        this.#assign(unasked, peer, now);
      } else if (this.#peers.size > 1 && peer.asking.size < ASK_AHEAD) {
        peer.toAsk.shift();
        const stream = peer.streams[0]!;
        if (!owes(peer)) peer.lastProgress = now;
        unasked.answers.set(peer, "asked-have");
        peer.asking.set(unasked.key, stream);
        stream.outbox.push({
          cid: unasked.cid,
          priority: unasked.priority,
          wantType: "have",
          sendDontHave: true,
        });
      } else {
        return;
      }
    }
  }

  #assign(want: Want, peer: Peer, now: number): void {
    const stream = peer.streams.reduce((a, b) => b.assigned.size < a.assigned.size ? b : a);
    if (!owes(peer)) peer.lastProgress = now;
    want.answers.set(peer, "asked-block");
    want.stream = stream;
    want.askedAt = now;
    stream.assigned.set(want.key, want);
    peer.assigned++;
    stream.outbox.push({ cid: want.cid, priority: want.priority, wantType: "block", sendDontHave: true });
  }

  /** Takes the want from the stream it was asked on; the caller says what the peer's answer is now. */
  #unassign(want: Want): void {
    const { stream } = want;
    if (stream === undefined) return;
    stream.assigned.delete(want.key);
    stream.peer.assigned--;
    want.stream = undefined;
  }

  /** Takes it back from the peer too: its block may still come. */
  #takeBack(want: Want, stream: Stream): void {
    stream.outbox.push({ cid: want.cid, cancel: true });
    mayComeLate(stream, want.key);
  }

  #askAgain(want: Want, peer: Peer): void {
    want.answers.delete(peer);
    if (peer.streams.length > 0) peer.toAsk.push(want);
  }

  /** Tells everyone known to have it that it can be asked again. */
  #offer(want: Want): void {
    for (const [peer, answer] of want.answers) if (answer === "have") peer.ready.push(want);
  }

  /** Gives up on a want that everyone has answered and nobody has. */
  #settle(want: Want): void {
    if (want.stream !== undefined || this.#wants.get(want.key) !== want) return;
    for (const peer of this.#peers.values()) {
      const answer = want.answers.get(peer);
      if (answer !== "dont-have" && answer !== "failed") return;
    }
    this.#wants.delete(want.key);
    this.#commands.push({ type: "missing", key: want.key });
  }

  #done(want: Want, from: Stream | undefined): void {
    const { stream } = want;
    if (stream !== undefined && stream !== from) this.#takeBack(want, stream);
    this.#unassign(want);
    this.#wants.delete(want.key);
    this.#blocks++;
    this.#accountLies(from);
  }

  #forget(want: Want): void {
    if (want.stream !== undefined) this.#takeBack(want, want.stream);
    this.#unassign(want);
    this.#wants.delete(want.key);
    for (const peer of this.#peers.values()) {
      const asked = peer.asking.get(want.key);
      if (asked === undefined) continue;
      peer.asking.delete(want.key);
      this.#takeBack(want, asked);
    }
  }

  #wrong(stream: Stream): void {
    const { peer } = stream;
    peer.stats.wrongBlocks++;
    stream.wrong++;
    if (peer.stats.wrongBlocks >= this.#maxWrong) this.#drop(peer, "wrong-blocks");
    else this.#accountLies(stream);
  }

  /**
   * A wrong block names no want, but each is the answer to one: when a stream owes no more wants than it sent wrong
   * blocks, these are the wants, and they are asked elsewhere at once.
   */
  #accountLies(stream: Stream | undefined): void {
    if (stream === undefined || stream.wrong === 0 || stream.assigned.size > stream.wrong) return;
    stream.wrong = 0;
    for (const want of [...stream.assigned.values()]) {
      this.#takeBack(want, stream);
      this.#unassign(want);
      want.answers.set(stream.peer, "failed");
      this.#offer(want);
      this.#settle(want);
    }
  }

  #drop(peer: Peer, reason: DropReason): void {
    if (peer.dropped) return;
    peer.dropped = true;
    this.#commands.push({ type: "drop", peer: peer.stats.peer, reason });
  }

  /** Lets an idle peer take over what others have owed for long. */
  #steal(peer: Peer, now: number): void {
    if (peer.dropped || peer.streams.length === 0 || peer.assigned > 0) return;
    let budget = 1 + Math.floor(this.#blocks / BLOCKS_PER_STEAL) - this.#steals;
    for (const want of this.#wants.values()) {
      if (peer.assigned >= peer.window) return;
      const { stream } = want;
      if (stream === undefined || stream.peer === peer || want.answers.get(peer) !== "have") continue;
      const age = now - want.askedAt;
      if (age < this.#stealAfterMs) continue;
      // From a peer that is silent everything is taken, and what it has owed for as long as it might have been silent.
      // From one that is only slow little is taken, as it may still come.
      if (age < this.#stallTimeoutMs && now - stream.peer.lastProgress < this.#stealAfterMs) {
        if (budget <= 0) continue;
        budget--;
        this.#steals++;
      }
      this.#takeBack(want, stream);
      this.#unassign(want);
      want.answers.set(stream.peer, "have");
      this.#assign(want, peer, now);
    }
  }
}

function owes(peer: Peer): boolean {
  return peer.assigned > 0 || peer.asking.size > 0;
}

/** Notes that a block may still come for a want that is asked no more. */
function mayComeLate({ late }: Stream, key: string): void {
  const count = late.get(key) ?? 0;
  late.delete(key);
  late.set(key, count + 1);
  if (late.size <= MAX_LATE) return;
  // The one longest ago is the least likely to come.
  const [oldest] = late.keys();
  if (oldest !== undefined) late.delete(oldest);
}

/** Whether a block may still come for a want that is asked no more; it counts as come. */
function cameLate({ late }: Stream, key: string): boolean {
  const count = late.get(key);
  if (count === undefined) return false;
  if (count > 1) late.set(key, count - 1);
  else late.delete(key);
  return true;
}

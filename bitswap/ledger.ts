/**
 * What a server keeps of each peer: counters, and how much it may still have. No network here.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** What was exchanged with one peer. */
export interface Ledger {
  /** Name of the peer. */
  readonly peer: string;
  /** Blocks sent. */
  readonly blocksSent: number;
  /** Bytes of those blocks. */
  readonly bytesSent: number;
  /** Presences `have` sent. */
  readonly haves: number;
  /** Presences `dont-have` sent. */
  readonly dontHaves: number;
  /** Messages received. */
  readonly messages: number;
  /** Wants that a limit left without an answer. */
  readonly refused: number;
  /** Wants open now, over all streams. */
  readonly wants: number;
  /** Streams open now. */
  readonly streams: number;
}

/** A {@linkcode Ledger} while it is written. */
export interface LedgerEntry extends Ledger {
  blocksSent: number;
  bytesSent: number;
  haves: number;
  dontHaves: number;
  messages: number;
  refused: number;
  wants: number;
  streams: number;
  /** Wants that wait for a block to come into the store, oldest first, and what forgets each. */
  readonly idle: Map<object, () => void>;
  /** Resolved, and taken away, when a want has ended; made by a stream that waits for that. */
  room: PromiseWithResolvers<void> | undefined;
  /** Bytes held of messages that are not complete, or not taken in yet, over all streams. */
  buffered: number;
  /** Bytes of blocks read for the peer and not written yet, over all streams. */
  held: number;
  /** Bytes sent since `windowStart`. */
  windowBytes: number;
  /** When the window of the served-bytes limit began, in ms. */
  windowStart: number;
}

/** Options of {@linkcode LedgerBook}. */
export interface LedgerOptions {
  /** Bytes of blocks a peer gets per window. @default {Infinity} */
  readonly maxServedBytes?: number | undefined;
  /** Length of that window, in ms. @default {3600000} */
  readonly servedBytesWindowMs?: number | undefined;
  /**
   * Peers remembered; the longest unseen are forgotten first, those with streams never, even past this.
   *
   * @default {4096}
   */
  readonly maxPeers?: number | undefined;
}

/** Default of {@linkcode LedgerOptions.servedBytesWindowMs}: an hour. */
export const DEFAULT_SERVED_BYTES_WINDOW_MS: number = 60 * 60 * 1000;
/** Default of {@linkcode LedgerOptions.maxPeers}. */
export const DEFAULT_MAX_LEDGERS = 4096;

/** The ledgers of all peers, within a bound. */
export class LedgerBook {
  readonly #entries = new Map<string, LedgerEntry>();
  readonly #maxServedBytes: number;
  readonly #window: number;
  readonly #maxPeers: number;

  /** Makes an empty book. */
  constructor(options: LedgerOptions = {}) {
    const {
      maxServedBytes = Infinity,
      servedBytesWindowMs = DEFAULT_SERVED_BYTES_WINDOW_MS,
      maxPeers = DEFAULT_MAX_LEDGERS,
    } = options;
    if (!(maxServedBytes >= 0)) {
      throw new RangeError(`Cannot make ledgers: maxServedBytes is ${maxServedBytes}`);
    }
    if (!(servedBytesWindowMs > 0)) {
      throw new RangeError(`Cannot make ledgers: servedBytesWindowMs is ${servedBytesWindowMs}`);
    }
    if (!(maxPeers > 0)) throw new RangeError(`Cannot make ledgers: maxPeers is ${maxPeers}`);
    this.#maxServedBytes = maxServedBytes;
    this.#window = servedBytesWindowMs;
    this.#maxPeers = maxPeers;
  }

  /** The peer's ledger, begun if there is none. */
  open(peer: string, now: number): LedgerEntry {
    let entry = this.#entries.get(peer);
    this.#entries.delete(peer);
    entry ??= {
      peer,
      blocksSent: 0,
      bytesSent: 0,
      haves: 0,
      dontHaves: 0,
      messages: 0,
      refused: 0,
      wants: 0,
      streams: 0,
      idle: new Map(),
      room: undefined,
      buffered: 0,
      held: 0,
      windowBytes: 0,
      windowStart: now,
    };
    this.#entries.set(peer, entry);
    if (this.#entries.size > this.#maxPeers) this.#forgetSome(entry);
    return entry;
  }

  /** The peer's ledger, if there is one. */
  get(peer: string): Ledger | undefined {
    const entry = this.#entries.get(peer);
    return entry === undefined ? undefined : publicLedger(entry);
  }

  /** All ledgers. */
  all(): Ledger[] {
    return [...this.#entries.values()].map(publicLedger);
  }

  /** Takes `bytes` from what the peer may have; false, and nothing taken, when there is not so much left. */
  take(entry: LedgerEntry, bytes: number, now: number): boolean {
    const age = now - entry.windowStart;
    // A clock that was set back begins a new window, rather than a long wait; one that fails begins none.
    if (!(age >= 0 && age < this.#window) && !Number.isNaN(now)) {
      entry.windowStart = now;
      entry.windowBytes = 0;
    }
    if (entry.windowBytes + bytes > this.#maxServedBytes) return false;
    entry.windowBytes += bytes;
    return true;
  }

  /** Forgets who is gone until the bound holds, but never `fresh`: it has no stream yet, and is about to. */
  #forgetSome(fresh: LedgerEntry): void {
    for (const [peer, entry] of this.#entries) {
      if (entry === fresh || entry.streams > 0) continue;
      this.#entries.delete(peer);
      if (this.#entries.size <= this.#maxPeers) return;
    }
  }
}

function publicLedger(entry: LedgerEntry): Ledger {
  const { peer, blocksSent, bytesSent, haves, dontHaves, messages, refused, wants, streams } = entry;
  return { peer, blocksSent, bytesSent, haves, dontHaves, messages, refused, wants, streams };
}

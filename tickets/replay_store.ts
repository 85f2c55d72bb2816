/**
 * What makes a ticket good once: the memory of spent tickets (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { latest } from "./_clock.ts";
import { ticketHour } from "./payload.ts";

/**
 * Hours after a ticket's own for which it is remembered. A ticket of hour h verifies until h+2 begins, and a spent one
 * is to be remembered until then and for 2 h at least: with all of an hour's tickets kept until h+4 begins both hold,
 * and an hour is forgotten as a whole.
 */
export const REPLAY_KEEP_HOURS = 4;

/** Most spent tickets that a {@linkcode MemoryReplayStore} remembers. */
export const DEFAULT_REPLAY_CAPACITY = 524_288;

/** A ticket whose proof holds and that is about to be spent. */
export interface TicketClaim {
  /** Identity of the ticket's ephemeral key under its ticket key, 22 characters of Base64URL. */
  readonly id: string;
  /** The hour that verified. */
  readonly hour: number;
  /** Milliseconds since 1970. */
  readonly now: number;
  /** The sender's rate-limit bucket, for stores that keep buckets shared between gateways; others ignore it. */
  readonly bucket?: string | undefined;
}

/**
 * What became of a claim:
 *
 * - `fresh`: it was not known and is recorded now
 * - `replayed`: it was known
 * - `limited`: the shared bucket is empty; nothing was recorded
 * - `full`: there is no room, and no live ticket is forgotten to make some
 * - `stale`: its hour may have been forgotten already, as happens after a clock that ran ahead was set back
 */
export type ReplayAnswer = "fresh" | "replayed" | "limited" | "full" | "stale";

/**
 * Remembers spent tickets. {@linkcode replayStoreContract} tests implementations.
 *
 * An implementation that cannot decide throws or rejects, and the verifier refuses the ticket. Time for forgetting never
 * goes back: the latest `now` seen counts.
 */
export interface ReplayStore {
  /** Checks and records in one atomic step: of any number of equal claims, at any number of gateways, one is fresh. */
  checkAndRecord(claim: TicketClaim): ReplayAnswer | Promise<ReplayAnswer>;
  /**
   * The same trip for a ticket that is refused anyway, so that refusals take equally long: records nothing. Charges
   * `bucket`, if given, where buckets are shared. Left out by stores that answer without a trip.
   */
  touch?(now: number, bucket?: string): void | Promise<void>;
  /** Lets go of connections and files. Idempotent. */
  close?(): void | Promise<void>;
}

/** Options of {@linkcode MemoryReplayStore}. */
export interface MemoryReplayStoreOptions {
  /** Spent tickets that are remembered at most; past that tickets are refused. @default {524288} */
  readonly capacity?: number | undefined;
}

/**
 * Remembers spent tickets in memory: for one gateway process. A restart forgets, so that a ticket of this hour or the one
 * before (or the next, where a client's clock is ahead) could be spent again: where that matters use
 * {@linkcode KvReplayStore} or {@linkcode RedisTicketStore}.
 *
 * @example Good once
 * ```ts
 * import { MemoryReplayStore } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * const store = new MemoryReplayStore();
 * const claim = { id: "AAAAAAAAAAAAAAAAAAAAAA", hour: 490555, now: 490555 * 3_600_000 };
 * assertEquals(store.checkAndRecord(claim), "fresh");
 * assertEquals(store.checkAndRecord(claim), "replayed");
 * ```
 */
export class MemoryReplayStore implements ReplayStore {
  readonly #capacity: number;
  readonly #hours = new Map<number, Set<string>>();
  #nowHour = 0;
  #size = 0;

  /**
   * Makes an empty one.
   *
   * @throws {RangeError} when the capacity is not a positive integer
   */
  constructor(options: MemoryReplayStoreOptions = {}) {
    const { capacity = DEFAULT_REPLAY_CAPACITY } = options;
    requireCapacity(capacity);
    this.#capacity = capacity;
  }

  /** Spent tickets remembered at the moment. */
  get size(): number {
    return this.#size;
  }

  /** Checks and records in one step. */
  checkAndRecord(claim: TicketClaim): ReplayAnswer {
    this.#advance(claim.now);
    if (isForgotten(claim.hour, this.#nowHour)) return "stale";
    const spent = this.#hours.get(claim.hour);
    if (spent?.has(claim.id)) return "replayed";
    if (this.#size >= this.#capacity) return "full";
    if (spent === undefined) this.#hours.set(claim.hour, new Set([claim.id]));
    else spent.add(claim.id);
    this.#size++;
    return "fresh";
  }

  #advance(now: number): void {
    const hour = latest(this.#nowHour, ticketHour(now));
    if (hour === this.#nowHour) return;
    this.#nowHour = hour;
    for (const [kept, spent] of this.#hours) {
      if (!isForgotten(kept, hour)) continue;
      this.#hours.delete(kept);
      this.#size -= spent.size;
    }
  }
}

/** Whether the spent tickets of `hour` need not be known any more in `nowHour`. */
export function isForgotten(hour: number, nowHour: number): boolean {
  return hour + REPLAY_KEEP_HOURS <= nowHour;
}

/** @throws {RangeError} when it is not a positive integer */
export function requireCapacity(capacity: number): void {
  if (!Number.isSafeInteger(capacity) || capacity < 1) {
    throw new RangeError(`Cannot make replay store: capacity is ${capacity}, not a positive integer`);
  }
}

/**
 * Spent tickets in Deno KV: for gateways on one machine, across restarts. Deno KV is unstable: programs that use this
 * run with `--unstable-kv` and may read and write the file.
 *
 *     [...prefix, "spent", hour, id]   0             a spent ticket
 *     [...prefix, "count", hour]       Deno.KvU64    how many of that hour
 *     [...prefix, "time"]              number        up to which hour tickets were forgotten
 *
 * @module
 */

import { HtxError } from "../core/mod.ts";
import { latest } from "./_clock.ts";
import { ticketHour } from "./payload.ts";
import {
  isForgotten,
  REPLAY_KEEP_HOURS,
  type ReplayAnswer,
  type ReplayStore,
  requireCapacity,
  type TicketClaim,
} from "./replay_store.ts";

/** Most spent tickets that a {@linkcode KvReplayStore} remembers. */
export const DEFAULT_KV_CAPACITY = 16_777_216;

const MAX_TRIES = 40;
const FIRST_BACKOFF_MS = 2;
const MAX_BACKOFF_MS = 250;
/** Entries that one call forgets at most: KV limits a transaction, and the caller waits for nobody's old entries. */
const SWEEP_BATCH = 200;

/** Options of {@linkcode KvReplayStore}. */
export interface KvReplayStoreOptions {
  /** Where in the database the entries are. @default {["htx", "tickets"]} */
  readonly prefix?: readonly string[] | undefined;
  /** Spent tickets that are remembered at most, to within what is recorded at once. @default {16777216} */
  readonly capacity?: number | undefined;
  /** Spreads retries, uniform in [0, 1). Not a secret. @default {Math.random} */
  readonly jitter?: (() => number) | undefined;
}

/**
 * Remembers spent tickets in Deno KV. Two processes on one file get `database is locked` now and then: calls are
 * repeated with a growing, random pause, for some seconds at most. Entries expire by the gateways' clock alone.
 *
 * @example With a database in memory
 * ```ts
 * import { KvReplayStore } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * if (typeof Deno !== "undefined" && typeof Deno.openKv === "function") {
 *   await using store = await KvReplayStore.open(":memory:");
 *   const claim = { id: "AAAAAAAAAAAAAAAAAAAAAA", hour: 490555, now: 490555 * 3_600_000 };
 *   assertEquals(await store.checkAndRecord(claim), "fresh");
 *   assertEquals(await store.checkAndRecord(claim), "replayed");
 * }
 * ```
 */
export class KvReplayStore implements ReplayStore, AsyncDisposable {
  readonly #kv: Deno.Kv;
  readonly #prefix: readonly string[];
  readonly #capacity: number;
  readonly #jitter: () => number;
  #nowHour = 0;
  #sweptHour = 0;
  #sweeping: Promise<void> | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  /**
   * Stands on an open database, which {@linkcode close} closes.
   *
   * @throws {RangeError} when the capacity is not a positive integer
   */
  constructor(kv: Deno.Kv, options: KvReplayStoreOptions = {}) {
    const { prefix = ["htx", "tickets"], capacity = DEFAULT_KV_CAPACITY, jitter = Math.random } = options;
    requireCapacity(capacity);
    this.#kv = kv;
    this.#prefix = [...prefix];
    this.#capacity = capacity;
    this.#jitter = jitter;
  }

  /**
   * Opens a database.
   *
   * @param path of the file; without one, the script's own default database
   * @throws {HtxError} `UNSUPPORTED` where there is no Deno KV, `STORE_FAILED` when it cannot be opened
   * @throws {RangeError} when the capacity is not a positive integer
   */
  static async open(path?: string, options: KvReplayStoreOptions = {}): Promise<KvReplayStore> {
    if (typeof Deno === "undefined" || typeof Deno.openKv !== "function") {
      throw new HtxError("UNSUPPORTED", "Cannot open Deno KV: run with Deno and --unstable-kv");
    }
    requireCapacity(options.capacity ?? DEFAULT_KV_CAPACITY);
    const jitter = options.jitter ?? Math.random;
    const kv = await retryWhileLocked(() => Deno.openKv(path), jitter, "Cannot open Deno KV");
    return new KvReplayStore(kv, options);
  }

  /**
   * Checks and records in one atomic step.
   *
   * @throws {HtxError} `STORE_FAILED` when the database cannot be used, `CLOSED` when the store is closed
   */
  async checkAndRecord(claim: TicketClaim): Promise<ReplayAnswer> {
    this.#requireOpen();
    this.#nowHour = latest(this.#nowHour, ticketHour(claim.now));
    const nowHour = this.#nowHour;
    const spentKey = this.#key("spent", claim.hour, claim.id);
    const hours = Array.from(
      { length: REPLAY_KEEP_HOURS + 2 },
      (_, i) => nowHour - REPLAY_KEEP_HOURS + 1 + i,
    );
    const answer = await this.#retry(async (): Promise<ReplayAnswer> => {
      const [spent, time, ...counts] = await this.#kv.getMany<[0, number, ...Deno.KvU64[]]>([
        spentKey,
        this.#key("time"),
        ...hours.map((hour) => this.#key("count", hour)),
      ]);
      if (spent.versionstamp !== null) return "replayed";
      if (isForgotten(claim.hour, Math.max(nowHour, time.value ?? 0))) return "stale";
      const size = counts.reduce((sum, count) => sum + (count.value?.value ?? 0n), 0n);
      if (size >= BigInt(this.#capacity)) return "full";
      const commit = await this.#kv.atomic()
        .check({ key: spentKey, versionstamp: null })
        .check({ key: this.#key("time"), versionstamp: time.versionstamp })
        .set(spentKey, 0)
        .sum(this.#key("count", claim.hour), 1n)
        .commit();
      if (commit.ok) return "fresh";
      // Somebody spent it meanwhile, or forgot an hour: which of them, the next look tells.
      throw new LockedError();
    });
    this.#sweep(nowHour);
    return answer;
  }

  /**
   * A trip that looks and records nothing.
   *
   * @throws {HtxError} as {@linkcode checkAndRecord} does
   */
  async touch(now: number): Promise<void> {
    this.#requireOpen();
    const key = this.#key("spent", ticketHour(now), "");
    await this.#retry(async () => {
      await this.#kv.getMany([key, this.#key("time"), this.#key("count", ticketHour(now))]);
    });
  }

  /** Finishes the sweep under way and closes the database. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    await this.#sweeping;
    this.#kv.close();
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Forgets what has expired, some of it at a time and beside the calls; one that fails is tried again later. */
  #sweep(nowHour: number): void {
    if (this.#sweeping !== undefined || this.#sweptHour >= nowHour || this.#closed) return;
    this.#sweeping = this.#forget(nowHour).then((done) => {
      if (done) this.#sweptHour = nowHour;
    }, () => {}).finally(() => this.#sweeping = undefined);
  }

  async #forget(nowHour: number): Promise<boolean> {
    const timeKey = this.#key("time");
    // First make the hours refused for everybody, whatever their clocks say; only then forget what was spent in them.
    await this.#retry(async () => {
      const time = await this.#kv.get<number>(timeKey);
      if ((time.value ?? 0) >= nowHour) return;
      const commit = await this.#kv.atomic().check(time).set(timeKey, nowHour).commit();
      if (!commit.ok) throw new LockedError();
    });
    const end = nowHour - REPLAY_KEEP_HOURS + 1;
    let entries = 0;
    for (const kind of ["spent", "count"]) {
      const selector = { start: [...this.#prefix, kind], end: this.#key(kind, end) };
      await this.#retry(async () => {
        let atomic = this.#kv.atomic();
        for await (const entry of this.#kv.list(selector, { limit: SWEEP_BATCH })) {
          atomic = atomic.delete(entry.key);
          entries++;
        }
        await atomic.commit();
      });
      if (entries >= SWEEP_BATCH) return false;
    }
    return true;
  }

  #key(...parts: (string | number)[]): Deno.KvKey {
    return [...this.#prefix, ...parts];
  }

  #retry<T>(call: () => Promise<T>): Promise<T> {
    return retryWhileLocked(call, this.#jitter, "Cannot use Deno KV");
  }

  #requireOpen(): void {
    if (this.#closed) throw new HtxError("CLOSED", "Cannot use Deno KV: the store is closed");
  }
}

/** Another writer was in between: look again. */
class LockedError extends Error {}

async function retryWhileLocked<T>(call: () => Promise<T>, jitter: () => number, verb: string): Promise<T> {
  for (let tries = 1;; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === MAX_TRIES || !isLocked(error)) {
        throw new HtxError("STORE_FAILED", `${verb}: the database cannot be reached`, { cause: error });
      }
      const limit = Math.min(FIRST_BACKOFF_MS * 2 ** tries, MAX_BACKOFF_MS);
      await new Promise((resolve) => setTimeout(resolve, limit * jitter()));
    }
  }
}

function isLocked(error: unknown): boolean {
  return error instanceof LockedError ||
    error instanceof Error && /database (?:table )?is locked/.test(error.message);
}

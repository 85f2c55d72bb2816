/**
 * The contracts that every {@linkcode ReplayStore} and {@linkcode RateLimiter} keeps, as test cases for any test runner.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeBase64Url } from "./_base64url.ts";
import { TICKET_HOUR_SECONDS } from "./payload.ts";
import type { RateLimiter } from "./rate_limiter.ts";
import type { ReplayAnswer, ReplayStore, TicketClaim } from "./replay_store.ts";

const HOUR_MS = TICKET_HOUR_SECONDS * 1000;

/** A test case. */
export interface ContractCase {
  /** What holds. */
  readonly name: string;
  /** Rejects when it does not hold. */
  readonly run: () => Promise<void>;
}

/** Options of {@linkcode replayStoreContract}. */
export interface ReplayStoreContractOptions {
  /** Handles of one space, opened one beside the other, see the same tickets. @default {false} */
  readonly shared?: boolean | undefined;
  /** What is recorded outlives the handle that recorded it. @default {false} */
  readonly persistent?: boolean | undefined;
  /** Equal claims to make at once. @default {1000} */
  readonly parallel?: number | undefined;
  /** Milliseconds since 1970 around which the cases play. @default {Date.now} */
  readonly now?: (() => number) | undefined;
}

/**
 * The cases that a {@linkcode ReplayStore} has to pass.
 *
 * @param open gives a handle on a space of that name, which is empty when it was never opened before
 *
 * @example With a test runner
 * ```ts
 * import { MemoryReplayStore, replayStoreContract } from "@betanet/htx/tickets";
 *
 * for (const { name, run } of replayStoreContract(() => new MemoryReplayStore())) {
 *   await run(); // or: Deno.test(name, run)
 *   console.log("ok", name);
 * }
 * ```
 */
export function replayStoreContract(
  open: (space: string) => ReplayStore | Promise<ReplayStore>,
  options: ReplayStoreContractOptions = {},
): ContractCase[] {
  const { shared = false, persistent = false, parallel = 1000, now = Date.now } = options;
  const hour = Math.floor(now() / HOUR_MS);
  const noon = hour * HOUR_MS + HOUR_MS / 2;
  const cases: ContractCase[] = [];
  const add = (name: string, body: (store: ReplayStore, space: string) => Promise<void>) => {
    cases.push({
      name,
      run: async () => {
        const space = randomId();
        const store = await open(space);
        try {
          await body(store, space);
        } finally {
          await store.close?.();
        }
      },
    });
  };
  const claim = (changes: Partial<TicketClaim> = {}): TicketClaim => ({
    id: randomId(),
    hour,
    now: noon,
    ...changes,
  });

  add("a ticket is fresh once and replayed ever after", async (store) => {
    const one = claim();
    expect(await store.checkAndRecord(one), "fresh", "at first");
    expect(await store.checkAndRecord(one), "replayed", "again");
    expect(await store.checkAndRecord({ ...one }), "replayed", "once more");
  });

  add("another key, or the same in another hour, is another ticket", async (store) => {
    const one = claim();
    expect(await store.checkAndRecord(one), "fresh", "at first");
    expect(await store.checkAndRecord(claim()), "fresh", "another key");
    expect(await store.checkAndRecord({ ...one, hour: hour + 1 }), "fresh", "the hour after");
    expect(await store.checkAndRecord({ ...one, hour: hour - 1 }), "fresh", "the hour before");
    expect(await store.checkAndRecord(one), "replayed", "the first again");
  });

  add(`of ${parallel} equal claims at once one is fresh`, async (store) => {
    const one = claim();
    const answers = await Promise.all(Array.from({ length: parallel }, () => store.checkAndRecord(one)));
    expectOneFresh(answers);
  });

  add("a ticket is never fresh twice while it can verify, whatever else is recorded", async (store) => {
    const start = (hour - 1) * HOUR_MS;
    const one = claim({ now: start });
    expect(await store.checkAndRecord(one), "fresh", "at the start of the hour before its own");
    for (let minute = 1; minute < 180; minute += minute < 170 ? 7 : 1) {
      const time = start + minute * 60_000;
      expect(
        await store.checkAndRecord(claim({ hour: Math.floor(time / HOUR_MS), now: time })),
        "fresh",
        "another",
      );
      expect(
        await store.checkAndRecord({ ...one, now: time }),
        "replayed",
        `the ticket after ${minute} minutes`,
      );
    }
  });

  add("a clock that ran ahead and was set back brings no ticket back", async (store) => {
    const one = claim();
    expect(await store.checkAndRecord(one), "fresh", "at first");
    const ahead = noon + 100 * HOUR_MS;
    for (let i = 0; i < 3; i++) {
      const other = claim({ hour: hour + 100, now: ahead + i * HOUR_MS });
      expect(await store.checkAndRecord({ ...other, hour: other.hour + i }), "fresh", "ahead");
    }
    const answer = await store.checkAndRecord(one);
    if (answer === "fresh") throw new Error("the ticket was fresh again");
  });

  add("a trip for a refused ticket records nothing", async (store) => {
    const one = claim();
    await store.touch?.(noon);
    await store.touch?.(noon, "4:c00002");
    expect(await store.checkAndRecord(one), "fresh", "after it");
  });

  if (shared) {
    add("of equal claims at several handles at once one is fresh", async (store, space) => {
      const other = await open(space);
      try {
        const one = claim();
        const answers = await Promise.all(
          Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? store : other).checkAndRecord(one)),
        );
        expectOneFresh(answers);
      } finally {
        await other.close?.();
      }
    });
  }

  if (persistent) {
    add("a spent ticket stays spent when the store is closed and opened again", async (store, space) => {
      const one = claim();
      expect(await store.checkAndRecord(one), "fresh", "at first");
      await store.close?.();
      const again = await open(space);
      try {
        expect(await again.checkAndRecord(one), "replayed", "after it was opened again");
      } finally {
        await again.close?.();
      }
    });
  }
  return cases;
}

/** Options of {@linkcode rateLimiterContract}. */
export interface RateLimiterContractOptions {
  /** Tokens that a bucket of it gains in a minute. @default {20} */
  readonly perMinute?: number | undefined;
  /** Tokens that a bucket of it holds. @default {40} */
  readonly burst?: number | undefined;
}

/**
 * The cases that a {@linkcode RateLimiter} of token buckets has to pass.
 *
 * @param open gives an empty one
 */
export function rateLimiterContract(
  open: () => (RateLimiter & { close?(): unknown }) | Promise<RateLimiter & { close?(): unknown }>,
  options: RateLimiterContractOptions = {},
): ContractCase[] {
  const { perMinute = 20, burst = 40 } = options;
  const start = 1_766_000_000_000;
  const interval = 60_000 / perMinute;
  const cases: ContractCase[] = [];
  const add = (name: string, body: (limiter: RateLimiter) => Promise<void>) => {
    cases.push({
      name,
      run: async () => {
        const limiter = await open();
        try {
          await body(limiter);
        } finally {
          await limiter.close?.();
        }
      },
    });
  };
  const drain = async (limiter: RateLimiter, bucket: string, now: number) => {
    for (let i = 0; i < burst; i++) {
      expect(await limiter.take(bucket, now), true, `token ${i + 1} of ${burst}`);
    }
    expect(await limiter.take(bucket, now), false, `token ${burst + 1} of ${burst}`);
  };

  add("a bucket holds its burst and no more", (limiter) => drain(limiter, randomId(), start));

  add("a token comes back after its time, not before", async (limiter) => {
    const bucket = randomId();
    await drain(limiter, bucket, start);
    expect(await limiter.take(bucket, start + Math.ceil(interval) - 2), false, "too early");
    expect(await limiter.take(bucket, start + Math.ceil(interval)), true, "in time");
    expect(await limiter.take(bucket, start + Math.ceil(interval)), false, "only one");
  });

  add("a bucket fills up to its burst however long it is left alone", async (limiter) => {
    const bucket = randomId();
    await drain(limiter, bucket, start);
    await drain(limiter, bucket, start + 24 * HOUR_MS);
  });

  add("buckets do not touch each other", async (limiter) => {
    const bucket = randomId();
    await drain(limiter, bucket, start);
    await drain(limiter, randomId(), start);
    expect(await limiter.take(bucket, start), false, "the first");
  });

  add("a clock that goes back gives no tokens", async (limiter) => {
    const bucket = randomId();
    await drain(limiter, bucket, start);
    expect(await limiter.take(bucket, start - HOUR_MS), false, "an hour before");
  });
  return cases;
}

function expectOneFresh(answers: readonly ReplayAnswer[]): void {
  const fresh = answers.filter((answer) => answer === "fresh").length;
  const others = new Set(answers.filter((answer) => answer !== "fresh"));
  others.delete("replayed");
  if (fresh !== 1 || others.size > 0) {
    throw new Error(
      `of ${answers.length} claims ${fresh} were fresh; other answers: ${[...others].join(", ") || "none"}`,
    );
  }
}

function expect<T>(actual: T, expected: T, when: string): void {
  if (actual !== expected) throw new Error(`${when}: expected ${expected}, got ${actual}`);
}

/** Keeps cases apart that share a database. */
function randomId(): string {
  return encodeBase64Url(crypto.getRandomValues(new Uint8Array(16)));
}

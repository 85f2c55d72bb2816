/**
 * Spent tickets and shared rate limits in Redis: for many gateways. One EVALSHA does both for a ticket.
 *
 *     <prefix>:spent:<hour>:<id>           "1"      expires some hours after it could verify for the last time
 *     <prefix>:rate:<limits>:<bucket>      number   milliseconds since 1970 at which the bucket is full again
 *
 * Limits are tokens a minute and at once, `20/40`: they give the number its meaning, so that other limits have other
 * buckets.
 *
 * Redis has to keep what it was given: `maxmemory-policy noeviction` (looked at whenever a connection is made; until it
 * is so, tickets are refused), and
 * `appendonly yes` if it is to survive its own restart. Each gateway also remembers what it recorded itself, 65 536 tickets
 * in four hours at most, so that a Redis that came back empty does not let one of these be spent twice at one gateway.
 *
 * @module
 */

import { tell } from "../core/_tell.ts";
import { HtxError } from "../core/mod.ts";
import { latest } from "./_clock.ts";
import { TICKET_HOUR_SECONDS, ticketHour } from "./payload.ts";
import {
  DEFAULT_TICKET_BURST,
  DEFAULT_TICKETS_PER_MINUTE,
  type RateLimiter,
  type TokenBucketOptions,
  tokenBucketTimes,
} from "./rate_limiter.ts";
import {
  isForgotten,
  MemoryReplayStore,
  REPLAY_KEEP_HOURS,
  type ReplayAnswer,
  type ReplayStore,
  type TicketClaim,
} from "./replay_store.ts";

/** Milliseconds that a connection may take to come up. */
export const DEFAULT_REDIS_CONNECT_TIMEOUT_MS = 2_000;
/** Milliseconds that an answer may take. */
export const DEFAULT_REDIS_COMMAND_TIMEOUT_MS = 1_000;

const HOUR_MS = TICKET_HOUR_SECONDS * 1000;
/** Redis forgets by its own clock: what the gateways' and its own may differ by. */
const CLOCK_SLACK_MS = HOUR_MS;
const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 2_000;
/** Commands without an answer. Strangers cause them, and a Redis that hangs without hanging up would gather all. */
const MAX_WAITING = 8_192;
/** What a gateway remembers of its own. */
const OWN_CAPACITY = 65_536;

/**
 * KEYS bucket, spent ticket; ARGV charge? record? interval, capacity, now or "" for Redis's own clock, least time to keep, time at
 * which to forget. A bucket is what it is in `MemoryRateLimiter`: the time at which it is full again.
 */
const SCRIPT = `
local time = redis.call("TIME")
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] == "1" then
  local now = tonumber(ARGV[5]) or clock
  local interval, capacity = tonumber(ARGV[3]), tonumber(ARGV[4])
  local known = tonumber(redis.call("GET", KEYS[1]) or "0")
  if known > now + capacity then
    known = now + capacity
    -- Redis's own clock was set back: what is empty now fills from now on
    if ARGV[5] == "" then redis.call("SET", KEYS[1], string.format("%.10f", known), "PX", math.ceil(capacity) + 60000) end
  end
  local full = math.max(known, now) + interval
  if full - now > capacity then return 2 end
  redis.call("SET", KEYS[1], string.format("%.10f", full), "PX", math.ceil(full - now) + 60000)
end
if ARGV[2] == "1" then
  local keep = math.max(tonumber(ARGV[6]), tonumber(ARGV[7]) - clock)
  if not redis.call("SET", KEYS[2], "1", "NX", "PX", string.format("%.0f", keep)) then return 1 end
end
return 0
`;

const FRESH = 0;
const REPLAYED = 1;
const LIMITED = 2;

/** Options of {@linkcode RedisTicketStore}. */
export interface RedisTicketStoreOptions extends TokenBucketOptions {
  /** What all keys begin with. The braces keep them in one slot of a cluster. @default {"{htx-tickets}"} */
  readonly prefix?: string | undefined;
  /** Milliseconds that a connection may take to come up. @default {2000} */
  readonly connectTimeoutMs?: number | undefined;
  /** Milliseconds that an answer may take; after that the ticket is refused. @default {1000} */
  readonly commandTimeoutMs?: number | undefined;
  /**
   * Whether a Redis that cannot be reached at first is an error. If not, the store refuses every ticket until it can.
   *
   * @default {true}
   */
  readonly required?: boolean | undefined;
  /**
   * Whose time fills buckets: Redis's own, the same for all gateways, or that of the call.
   *
   * @default {"redis"}
   */
  readonly bucketClock?: "redis" | "caller" | undefined;
  /**
   * Told of lost connections and of a Redis that forgot. For the log: neither the error nor its cause holds an address, a
   * password or anything of a ticket.
   */
  readonly onError?: ((error: HtxError) => void) | undefined;
}

/** Limits as the script takes them. */
interface Limits {
  readonly name: string;
  readonly interval: string;
  readonly capacity: string;
}

/** The little of a Redis client that is used here. */
interface Connection {
  readonly isReady: boolean;
  info(section: string): Promise<string>;
  scriptLoad(script: string): Promise<string>;
  evalSha(sha: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>;
  close(): Promise<void>;
  destroy(): void;
}

/**
 * Remembers spent tickets in Redis, and keeps token buckets there that all gateways share.
 *
 * As the verifier's `replay`, it charges the shared bucket and records the ticket in one step, after the key exchange;
 * a limiter in memory stands before that. As its `limiter` too, the shared bucket is charged before the key exchange, for
 * a second trip.
 *
 * @example Two gateways, one Redis
 * ```ts ignore
 * import { generateTicketKey, RedisTicketStore, TicketVerifier } from "@betanet/htx/tickets";
 *
 * await using replay = await RedisTicketStore.connect("redis://127.0.0.1:6379");
 * const verifier = new TicketVerifier({ keys: [generateTicketKey()], replay });
 * ```
 */
export class RedisTicketStore implements ReplayStore, RateLimiter, AsyncDisposable {
  readonly #connection: Connection;
  readonly #options: RedisTicketStoreOptions;
  readonly #prefix: string;
  #limits: Limits;
  readonly #own: MemoryReplayStore = new MemoryReplayStore({ capacity: OWN_CAPACITY });
  #sha: Promise<string> | undefined;
  /** That this Redis keeps what it is given, once for each connection. */
  #keeps: Promise<void> | undefined;
  #nowHour = 0;
  #closed = false;
  #closing: Promise<void> | undefined;

  private constructor(connection: Connection, options: RedisTicketStoreOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#prefix = options.prefix ?? "{htx-tickets}";
    this.#limits = limitsOf(options);
  }

  /**
   * Connects to a Redis of version 5 or later. Needs the `@redis/client` package, and network permission alone.
   *
   * @param url `redis[s]://[[user][:password]@]host[:port][/database]`
   * @throws {HtxError} `STORE_FAILED` when it cannot be reached or is set to forget keys when it is full (its cause names
   * the kind of failure alone), `UNSUPPORTED` when the package cannot be loaded
   * @throws {TypeError} when the URL is none
   * @throws {RangeError} when a limit is not a positive number, or a timeout not in (0, 2^31) ms
   */
  static async connect(url: string, options: RedisTicketStoreOptions = {}): Promise<RedisTicketStore> {
    const { connectTimeoutMs = DEFAULT_REDIS_CONNECT_TIMEOUT_MS, required = true, onError } = options;
    tokenBucketTimes(options);
    requireTimeout("connectTimeoutMs", connectTimeoutMs);
    requireTimeout("commandTimeoutMs", options.commandTimeoutMs ?? DEFAULT_REDIS_COMMAND_TIMEOUT_MS);
    if (!isRedisUrl(url)) {
      throw new TypeError("Cannot connect to Redis: the URL is not of the form redis[s]://host:port");
    }
    const { createClient } = await importClient();
    let wasReady = false;
    const client = createClient({
      url,
      RESP: 2, // RESP 3 has it read an environment variable, and fail for ever where it may not
      maintNotifications: "disabled",
      disableClientInfo: true,
      disableOfflineQueue: true, // a ticket is refused rather than kept waiting
      commandsQueueMaxLength: MAX_WAITING,
      socket: {
        connectTimeout: connectTimeoutMs,
        reconnectStrategy: (retries: number): number | false => {
          if (required && !wasReady) return false;
          const limit = Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(retries, 16), MAX_BACKOFF_MS);
          return limit / 2 + Math.random() /* jitter */ * limit / 2;
        },
      },
    });
    client.on("error", (cause: unknown) => {
      tell(onError, failed("Cannot use Redis: the connection failed", cause));
    });
    const store = new RedisTicketStore(client, options);
    client.on("ready", () => store.#keeps = undefined); // another connection, perhaps another Redis
    const connected = client.connect().then(async () => {
      wasReady = true;
      await store.#checkKeeps();
    });
    if (!required) {
      connected.catch((cause: unknown) => {
        if (!store.#closed) tell(onError, failed("Cannot use Redis: it is not usable", cause));
      });
      return store;
    }
    try {
      await withTimeout(connected, connectTimeoutMs);
    } catch (cause) {
      connected.catch(() => {});
      client.destroy();
      if (cause instanceof HtxError) throw cause;
      throw failed("Cannot connect to Redis: it does not answer", cause);
    }
    return store;
  }

  /**
   * Checks and records in one atomic step.
   *
   * @throws {HtxError} `STORE_FAILED` when the database cannot be used, `CLOSED` when the store is closed
   */
  async checkAndRecord(claim: TicketClaim): Promise<ReplayAnswer> {
    this.#nowHour = latest(this.#nowHour, ticketHour(claim.now));
    if (isForgotten(claim.hour, this.#nowHour)) {
      await this.touch(claim.now, claim.bucket);
      return "stale";
    }
    const forgetAt = (claim.hour + REPLAY_KEEP_HOURS) * HOUR_MS + CLOCK_SLACK_MS;
    const answer = await this.#run(claim.bucket, claim.now, {
      key: `${claim.hour}:${claim.id}`,
      keep: Math.max(forgetAt - claim.now, 2 * HOUR_MS),
      forgetAt,
    });
    switch (answer) {
      case FRESH:
        if (this.#own.checkAndRecord(claim) !== "replayed") return "fresh";
        tell(
          this.#options.onError,
          new HtxError("STORE_FAILED", "Cannot rely on Redis: it forgot a spent ticket"),
        );
        return "replayed";
      case REPLAYED:
        return "replayed";
      case LIMITED:
        return "limited";
      default:
        throw new HtxError("STORE_FAILED", "Cannot use Redis: the answer is none of the script's");
    }
  }

  /**
   * A trip that records nothing and charges `bucket`, if given.
   *
   * @throws {HtxError} as {@linkcode checkAndRecord} does
   */
  async touch(now: number, bucket?: string): Promise<void> {
    await this.#run(bucket, now, undefined);
  }

  /**
   * Takes a token out of a shared bucket; whether there was one.
   *
   * @throws {HtxError} as {@linkcode checkAndRecord} does
   */
  async take(bucket: string, now: number): Promise<boolean> {
    return await this.#run(bucket, now, undefined) === FRESH;
  }

  /**
   * Sets what buckets gain and hold, from the next call on. All are full then, as they are in a new
   * `MemoryRateLimiter`.
   *
   * @throws {RangeError} when a limit is not a positive number; the old ones stay then
   */
  setLimits(limits: TokenBucketOptions): void {
    this.#limits = limitsOf(limits);
  }

  /** Ends the connection. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    if (!this.#connection.isReady) return this.#connection.destroy();
    try {
      await this.#withTimeout(this.#connection.close());
    } catch {
      this.#connection.destroy();
    }
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The one command of a ticket. */
  async #run(
    bucket: string | undefined,
    now: number,
    record: { key: string; keep: number; forgetAt: number } | undefined,
  ): Promise<unknown> {
    if (this.#closed) throw new HtxError("CLOSED", "Cannot use Redis: the store is closed");
    const { name, interval, capacity } = this.#limits;
    const call = {
      keys: [`${this.#prefix}:rate:${name}:${bucket ?? ""}`, `${this.#prefix}:spent:${record?.key ?? ""}`],
      arguments: [
        bucket === undefined ? "0" : "1",
        record === undefined ? "0" : "1",
        interval,
        capacity,
        this.#options.bucketClock === "caller" ? String(now) : "",
        String(record?.keep ?? 0),
        String(record?.forgetAt ?? 0),
      ],
    };
    try {
      return await this.#withTimeout(this.#evaluate(call));
    } catch (cause) {
      if (cause instanceof HtxError) throw cause;
      throw failed("Cannot use Redis: the command failed", cause);
    }
  }

  #checkKeeps(): Promise<void> {
    if (this.#keeps === undefined) {
      const checking = this.#connection.info("memory").then(requireNoEviction);
      this.#keeps = checking;
      checking.catch(() => {
        if (this.#keeps === checking) this.#keeps = undefined; // the next ticket looks again
      });
    }
    return this.#keeps;
  }

  async #evaluate(call: { keys: string[]; arguments: string[] }): Promise<unknown> {
    await this.#checkKeeps();
    if (this.#sha === undefined) {
      const loading = this.#connection.scriptLoad(SCRIPT);
      this.#sha = loading;
      loading.catch(() => this.#sha = undefined);
    }
    try {
      return await this.#connection.evalSha(await this.#sha, call);
    } catch (error) {
      // A Redis that was restarted has no scripts. It did nothing, so that asking again is safe.
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
      return await this.#connection.evalSha(await this.#connection.scriptLoad(SCRIPT), call);
    }
  }

  #withTimeout<T>(promise: Promise<T>): Promise<T> {
    return withTimeout(promise, this.#options.commandTimeoutMs ?? DEFAULT_REDIS_COMMAND_TIMEOUT_MS);
  }
}

/** @throws {RangeError} when a limit is not a positive number */
function limitsOf(options: TokenBucketOptions): Limits {
  const { perMinute = DEFAULT_TICKETS_PER_MINUTE, burst = DEFAULT_TICKET_BURST } = options;
  const { interval, capacity } = tokenBucketTimes({ perMinute, burst });
  return { name: `${perMinute}/${burst}`, interval: String(interval), capacity: String(capacity) };
}

/**
 * The error for one of the client's. Of that its kind alone is kept: systems name addresses, and Redis repeats what
 * stood in a command that it does not know or does not allow, the password of AUTH among it.
 */
function failed(message: string, cause: unknown): HtxError {
  return new HtxError("STORE_FAILED", message, {
    cause: cause instanceof HtxError ? cause : new Error(kindOf(cause)),
  });
}

/** A system's code, such as `ECONNREFUSED`, the word that a refusal of Redis begins with, or the error's class. */
function kindOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "unknown";
  if ("code" in cause && typeof cause.code === "string") return cause.code;
  return /^[A-Z]+(?= )/.exec(cause.message)?.[0] ?? cause.constructor.name;
}

function isRedisUrl(url: string): boolean {
  if (!/^rediss?:\/\/[^/]/.test(url)) return false;
  try {
    const { username, password } = new URL(url);
    decodeURIComponent(username);
    decodeURIComponent(password);
    return true;
  } catch {
    return false;
  }
}

/** Timers fire at once where the time is none of theirs, and every command would be late. */
function requireTimeout(name: string, milliseconds: number): void {
  if (!(milliseconds > 0 && milliseconds < 2 ** 31)) {
    throw new RangeError(`Cannot connect to Redis: ${name} is ${milliseconds}, not above 0 and below 2^31`);
  }
}

async function withTimeout<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new HtxError("STORE_FAILED", `Cannot use Redis: no answer within ${milliseconds} ms`));
    }, milliseconds);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

async function importClient(): Promise<typeof import("@redis/client")> {
  try {
    return await import("@redis/client");
  } catch (cause) {
    throw new HtxError("UNSUPPORTED", "Cannot connect to Redis: the package @redis/client is not there", {
      cause,
    });
  }
}

/** @throws {HtxError} when Redis makes room by forgetting keys */
function requireNoEviction(info: string): void {
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? "noeviction";
  const limit = /^maxmemory:([0-9]+)/m.exec(info)?.[1] ?? "0";
  if (policy !== "noeviction" && limit !== "0") {
    throw new HtxError(
      "STORE_FAILED",
      `Cannot use Redis: its maxmemory-policy is ${policy}, which forgets spent tickets; set it to noeviction`,
    );
  }
}

/**
 * Memory of the handshakes already seen. This module is browser compatible.
 *
 * @module
 */

/** HTX 1.1 §1: how many ephemeral keys a responder remembers. */
const DEFAULT_CAPACITY = 65_536;

/** Options of {@linkcode ReplayGuard}. */
export interface ReplayGuardOptions {
  /** How many keys are remembered; the oldest is forgotten first. @default {65536} */
  capacity?: number | undefined;
}

/**
 * Remembers the ephemeral keys of messages 1 that opened, so that the replay of a recording looks like any other
 * stranger (HTX 1.1 §1). One per static key: every listener with that key shares it.
 *
 * @example
 * ```ts
 * import { ReplayGuard } from "@betanet/htx/noise";
 * import { assert, assertFalse } from "@std/assert";
 *
 * const guard = new ReplayGuard();
 * const ephemeral = crypto.getRandomValues(new Uint8Array(32));
 * assert(guard.remember(ephemeral));
 * assertFalse(guard.remember(ephemeral));
 * ```
 */
export class ReplayGuard {
  readonly #seen = new Set<string>();
  /** The same keys in order of arrival: a Set's own order is slow to take the first of. */
  readonly #order: string[] = [];
  readonly #capacity: number;
  #next = 0;

  /**
   * Makes an empty guard.
   *
   * @throws {RangeError} when the capacity is no positive integer
   */
  constructor(options: ReplayGuardOptions = {}) {
    const { capacity = DEFAULT_CAPACITY } = options;
    if (!Number.isSafeInteger(capacity) || capacity < 1) {
      throw new RangeError(`Cannot make replay guard: capacity is ${capacity}`);
    }
    this.#capacity = capacity;
  }

  /** How many keys are remembered at the moment. */
  get size(): number {
    return this.#seen.size;
  }

  /** Whether the key is new; in the same step it is remembered. */
  remember(ephemeralKey: Uint8Array): boolean {
    const key = latin1(ephemeralKey);
    if (this.#seen.has(key)) return false;
    const oldest = this.#order[this.#next];
    if (oldest !== undefined) this.#seen.delete(oldest);
    this.#order[this.#next] = key;
    this.#seen.add(key);
    this.#next = (this.#next + 1) % this.#capacity;
    return true;
  }
}

/** One character a byte: the shortest key that a Set takes. */
function latin1(bytes: Uint8Array): string {
  return Reflect.apply(String.fromCharCode, undefined, bytes);
}

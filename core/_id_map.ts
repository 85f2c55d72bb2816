/**
 * A map for things that come and go by the thousand a second.
 *
 * Each time a `Map` grows or sweeps out what was deleted, it leaves its old table behind with a reference to the new one.
 * If a table was promoted in a quiet moment, it keeps its successor from dying young once it is dead itself, and that
 * one the next: every later table is promoted, and with it the streams and requests that were in it, until a major
 * collection comes. A gateway lost a sixth of its throughput to that. Here the table stays, and forgets what is deleted.
 *
 * @module
 */

/** Slots of an empty table. A power of two, as all sizes are. */
const LEAST = 16;
/** Slots that a table keeps once it has them: what was busy is likely to be busy again. */
const KEPT = 1024;

/** A peer picks the ids of its streams: it is not to know where they go. One a process. */
let seed: number | undefined;

/** A map whose keys are non-negative integers: open addressing, linear probing, no tombstones. */
export class IdMap<T extends object> {
  #keys: number[] = new Array(LEAST).fill(0);
  #values: (T | undefined)[] = new Array(LEAST).fill(undefined);
  #size = 0;
  readonly #seed = (seed ??= crypto.getRandomValues(new Int32Array(1))[0]!);

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** What stands under `key`. */
  get(key: number): T | undefined {
    return this.#values[this.#find(key)];
  }

  /** Puts `value` under `key`, in place of what stood there. */
  set(key: number, value: T): void {
    let at = this.#find(key);
    if (this.#values[at] === undefined) {
      if (2 * (this.#size + 1) > this.#values.length) {
        this.#resize(2 * this.#values.length);
        at = this.#find(key);
      }
      this.#size++;
      this.#keys[at] = key;
    }
    this.#values[at] = value;
  }

  /** Takes `key` out; whether it was there. */
  delete(key: number): boolean {
    const values = this.#values;
    let hole = this.#find(key);
    if (values[hole] === undefined) return false;
    this.#size--;
    values[hole] = undefined;
    // Whatever was pushed past the hole moves up, so that a search may end at the first empty slot.
    const mask = values.length - 1;
    for (let at = (hole + 1) & mask; values[at] !== undefined; at = (at + 1) & mask) {
      const home = this.#home(this.#keys[at]!);
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#keys[hole] = this.#keys[at]!;
      values[hole] = values[at];
      values[at] = undefined;
      hole = at;
    }
    if (values.length > KEPT && 8 * this.#size < values.length) this.#resize(values.length / 2);
    return true;
  }

  /** All values as they are now, in no order. */
  values(): T[] {
    return this.#values.filter((value) => value !== undefined);
  }

  /** The slot of `key`, or the empty one where it would go. */
  #find(key: number): number {
    const values = this.#values;
    const mask = values.length - 1;
    let at = this.#home(key);
    while (values[at] !== undefined && this.#keys[at] !== key) at = (at + 1) & mask;
    return at;
  }

  /** Where `key` would be if it were alone. */
  #home(key: number): number {
    let hash = Math.imul(key ^ this.#seed, 0x9e3779b1);
    hash = Math.imul(hash ^ hash >>> 15 ^ key / 0x1_0000_0000, 0x85ebca6b);
    return (hash ^ hash >>> 13) & (this.#keys.length - 1);
  }

  #resize(length: number): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Array(length).fill(0);
    this.#values = new Array(length).fill(undefined);
    values.forEach((value, i) => {
      if (value === undefined) return;
      const at = this.#find(keys[i]!);
      this.#keys[at] = keys[i]!;
      this.#values[at] = value;
    });
  }
}

/**
 * Time for tests that do not wait.
 *
 * @module
 */

import type { Clock } from "./connection.ts";

/** A clock that moves when it is told to. */
export class ManualClock implements Clock {
  #now = 1000;
  readonly #timers: Set<{ at: number; callback: () => void }> = new Set();

  now(): number {
    return this.#now;
  }

  setTimer(delay: number, callback: () => void): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  get timers(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
    }
    this.#now = end;
  }
}

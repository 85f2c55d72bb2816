/**
 * How far the receive windows of a session reach (HTX 1.1 §4). A window has to cover what is under way in a round trip,
 * or its sender waits; what it covers beyond that waits in buffers, and everything else on the session waits behind it.
 * So a stream that has the session to itself gets all the room that speeds it up, and one that shares it with others
 * gets no more than the path needs.
 *
 * @module
 */

import { INITIAL_WINDOW, type ResolvedLimits } from "./limits.ts";

/** For how long a session counts as shared after data came for two open streams in turns, in ms. */
const SHARED_MS = 1000;
/** The part of the largest window that is enough for a stream on a shared session with a short path. */
const SHARED_PART = 2;

/** What of a stream its window goes by. */
export interface WindowedStream {
  /** Window that updates aim at, in bytes. */
  _target: number;
  /** Bytes that the application has read since the last update; below 0 where the window is shrinking. */
  _consumed: number;
  /** When credit last went out, or the first data came. */
  _creditedAt: number;
  /** Whether no more data comes. */
  readonly _receiveEnded: boolean;
}

/** Sets the windows of one session's streams, from their own pace and the round trips measured. */
export class ReceiveWindows {
  readonly #limits: ResolvedLimits;
  #budget: number;
  /** Where the window of the last large stream got to. */
  #lastTarget = INITIAL_WINDOW;
  #roundTrip: number | undefined;
  #shortest = Infinity;
  /** The stream that data came for last. */
  #last: WindowedStream | undefined;
  #turn = false;
  #sharedAt = -Infinity;

  /** The bounds are `maxStreamWindow` and `receiveBudget`. */
  constructor(limits: ResolvedLimits) {
    this.#limits = limits;
    this.#budget = limits.receiveBudget;
  }

  /** The last round trip in ms; `undefined` where none was measured. */
  get roundTrip(): number | undefined {
    return this.#roundTrip;
  }

  /** A round trip took `ms`. */
  measured(ms: number): void {
    this.#roundTrip = ms;
    this.#shortest = Math.min(this.#shortest, ms);
  }

  /** Data came for `stream`. */
  data(stream: WindowedStream): void {
    if (stream === this.#last) return;
    if (this.#last !== undefined && !this.#last._receiveEnded) this.#turn = true;
    this.#last = stream;
  }

  /** `stream` has ended: what its window took of the budget is there for others. */
  ended(stream: WindowedStream): void {
    if (stream === this.#last) this.#last = undefined;
    this.#budget += stream._target - INITIAL_WINDOW;
    if (stream._target > INITIAL_WINDOW) this.#lastTarget = stream._target;
    stream._target = INITIAL_WINDOW;
  }

  /**
   * The credit to return now for what was read of `stream`; 0 where a window that is too large shrinks by as much.
   * `measure` is called where a fresh round trip would help to judge.
   */
  credit(stream: WindowedStream, now: number, measure: () => void): number {
    if (this.#turn) this.#sharedAt = now;
    this.#turn = false;
    const elapsed = now - stream._creditedAt; // for the half of a window
    const shared = now - this.#sharedAt < SHARED_MS;
    const change = this.#change(stream, elapsed, shared, measure);
    this.#budget -= change;
    stream._target += change;
    const credit = stream._consumed + change;
    stream._consumed = Math.min(0, credit);
    stream._creditedAt = now;
    return Math.max(0, credit);
  }

  #change(stream: WindowedStream, elapsed: number, shared: boolean, measure: () => void): number {
    const { maxStreamWindow } = this.#limits;
    const { _target: target } = stream;
    const enough = Math.max(INITIAL_WINDOW, Math.floor(maxStreamWindow / SHARED_PART));
    const most = shared ? enough : maxStreamWindow;
    if (target > most) {
      // The path is short against the time that half of the window lasts: the rest of it only queues.
      return elapsed >= 2 * this.#shortest ? most - target : 0;
    }
    const room = Math.min(this.#budget, maxStreamWindow - target);
    if (room <= 0) return 0;
    // A stream that comes to half its first window starts where the session's last large one got to.
    if (target < this.#lastTarget && target < most) {
      return Math.min(room, this.#lastTarget - target, most - target);
    }
    if (this.#roundTrip === undefined) measure();
    // A window that was half read in less than a round trip or two holds its sender up. On a shared session round trips
    // are long for the very reason that windows are large: there the shortest counts.
    else if (target < most ? elapsed < 2 * this.#roundTrip : elapsed < this.#shortest) {
      measure();
      return Math.min(room, target);
    }
    return 0;
  }
}

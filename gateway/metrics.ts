/**
 * What a gateway counts. Plain numbers: counting costs nothing worth mentioning.
 *
 * @module
 */

import { TICKET_REFUSALS, type TicketRefusal } from "../tickets/mod.ts";

/** What became of a request. */
export type Outcome =
  | "forwarded"
  | "decoy"
  | "upgraded"
  | "bad-request"
  | "too-large"
  | "overloaded"
  | "upstream-down"
  | "upstream-refused"
  | "upstream-slow"
  | "upstream-malformed"
  | "client-gone"
  | "cut"
  | "stopping";

/** Every {@linkcode Outcome}. */
export const OUTCOMES: readonly Outcome[] = [
  "forwarded",
  "decoy",
  "upgraded",
  "bad-request",
  "too-large",
  "overloaded",
  "upstream-down",
  "upstream-refused",
  "upstream-slow",
  "upstream-malformed",
  "client-gone",
  "cut",
  "stopping",
];

/** Upper bounds of the latency histogram's buckets, in seconds. */
export const LATENCY_BUCKETS: readonly number[] = [
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
  30,
];

/** Counters of one gateway. */
export class GatewayMetrics {
  /** Requests by what became of them. */
  readonly outcomes: Record<Outcome, number> = Object.fromEntries(OUTCOMES.map((one) => [one, 0])) as Record<
    Outcome,
    number
  >;
  /** Tickets by result; `accepted`, or why not. */
  readonly tickets: Record<TicketRefusal | "accepted", number> = Object.fromEntries(
    ["accepted", ...TICKET_REFUSALS].map((one) => [one, 0]),
  ) as Record<TicketRefusal | "accepted", number>;
  /** Requests let in by their admission cookie. */
  admissions = 0;
  /** Requests sent again on another session. */
  retries = 0;
  /** Moves of traffic from one upstream to another. */
  switches = 0;
  /** Bytes of request bodies. */
  bytesIn = 0;
  /** Bytes of response bodies. */
  bytesOut = 0;
  /** Requests on their way now, open WebSockets among them. */
  active = 0;
  /** Sum of all latencies, in seconds. */
  latencySum = 0;
  /** Requests in each latency bucket; the last one is for all above. */
  readonly latency: number[] = new Array<number>(LATENCY_BUCKETS.length + 1).fill(0);

  /** Counts a request that is through, and the time until its answer began, in ms. */
  done(outcome: Outcome, ms: number): void {
    this.outcomes[outcome]++;
    const seconds = ms / 1000;
    this.latencySum += seconds;
    let i = 0;
    while (i < LATENCY_BUCKETS.length && seconds > LATENCY_BUCKETS[i]!) i++;
    this.latency[i]!++;
  }
}

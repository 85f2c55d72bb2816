/**
 * What a site may publish about its tickets: the `BN-Ticket` header (HTX 1.1 §6).
 *
 *     BN-Ticket: v1; carriers=cookie:0.5,query:0.3,body:0.2; len=24..64; cookie=__Host-bn1
 *
 * This module is browser compatible.
 *
 * @module
 */

import { HtxError } from "../core/mod.ts";
import { trimBlanks } from "../core/_blanks.ts";
import { MAX_PAD_LENGTH, MIN_PAD_LENGTH } from "./payload.ts";

/** Name of the header. */
export const TICKET_POLICY_HEADER = "BN-Ticket";
/** Name of the ticket's cookie where the policy names no other. */
export const DEFAULT_TICKET_COOKIE = "__Host-bn1";
/** Name of the ticket's query parameter and of its form field. */
export const TICKET_PARAMETER = "bn1";
/** The carriers of version 1, in the order of the header. */
export const TICKET_CARRIERS: readonly TicketCarrier[] = ["cookie", "query", "body"];

/** Where in a request a ticket travels. */
export type TicketCarrier = "cookie" | "query" | "body";

/** The parts of a policy, each with a default. */
export interface TicketPolicyInit {
  /**
   * Weight of each carrier: non-negative, finite, not all 0; a carrier left out weighs 0.
   *
   * @default {{ cookie: 0.5, query: 0.3, body: 0.2 }}
   */
  readonly carriers?: Readonly<Partial<Record<TicketCarrier, number>>> | undefined;
  /** Fewest pad bytes, from 24. @default {24} */
  readonly minPad?: number | undefined;
  /** Most pad bytes, to 64. @default {64} */
  readonly maxPad?: number | undefined;
  /** Name of the ticket's cookie. @default {"__Host-bn1"} */
  readonly cookie?: string | undefined;
}

/**
 * Which carriers a site takes tickets in and how long their pad is. Immutable.
 *
 * @example Reading a site's header
 * ```ts
 * import { TicketPolicy } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * const policy = TicketPolicy.parse("v1; carriers=cookie:3,query:1; len=24..40");
 * assertEquals(policy.shares, { cookie: 0.75, query: 0.25, body: 0 });
 * assertEquals(policy.cookie, "__Host-bn1");
 * assertEquals(`${policy}`, "v1; carriers=cookie:3,query:1; len=24..40; cookie=__Host-bn1");
 * ```
 */
export class TicketPolicy {
  /** The weights as given; 0 where a carrier was not named. */
  readonly carriers: Readonly<Record<TicketCarrier, number>>;
  /** The weights divided by their sum: the probability of each carrier. */
  readonly shares: Readonly<Record<TicketCarrier, number>>;
  /** Fewest pad bytes. */
  readonly minPad: number;
  /** Most pad bytes. */
  readonly maxPad: number;
  /** Name of the ticket's cookie. */
  readonly cookie: string;

  /**
   * Makes a policy of one's own.
   *
   * @throws {RangeError} when a weight or the pad range is not allowed
   * @throws {TypeError} when the cookie's name is none
   */
  constructor(init: TicketPolicyInit = {}) {
    const { carriers = { cookie: 0.5, query: 0.3, body: 0.2 }, cookie = DEFAULT_TICKET_COOKIE } = init;
    const { minPad = MIN_PAD_LENGTH, maxPad = MAX_PAD_LENGTH } = init;
    const weights = { cookie: carriers.cookie ?? 0, query: carriers.query ?? 0, body: carriers.body ?? 0 };
    const sum = weights.cookie + weights.query + weights.body;
    if (TICKET_CARRIERS.some((carrier) => !(weights[carrier] >= 0)) || !(sum > 0) || !Number.isFinite(sum)) {
      throw new RangeError("Cannot make ticket policy: weights are non-negative, finite and not all 0");
    }
    if (!isPadRange(minPad, maxPad)) {
      throw new RangeError(
        `Cannot make ticket policy: the pad is ${minPad}..${maxPad}, allowed is a range within ` +
          `${MIN_PAD_LENGTH}..${MAX_PAD_LENGTH}`,
      );
    }
    if (!isToken(cookie)) throw new TypeError("Cannot make ticket policy: the cookie's name is not a token");
    this.carriers = Object.freeze(weights);
    this.shares = Object.freeze({
      cookie: weights.cookie / sum,
      query: weights.query / sum,
      body: weights.body / sum,
    });
    this.minPad = minPad;
    this.maxPad = maxPad;
    this.cookie = cookie;
  }

  /**
   * Reads the value of a `BN-Ticket` header. Unknown carriers and parameters are ignored; `len` and `cookie` have
   * defaults.
   *
   * @throws {HtxError} `MALFORMED` with `field` naming the offending part: `version`, `carriers`, `len`, `cookie`, or
   * `parameter` for one that stands twice
   */
  static parse(header: string): TicketPolicy {
    const [version, ...rest] = header.split(";").map(trimBlanks);
    if (version !== "v1") throw malformed("version", "the version is not v1");
    const parameters = new Map<string, string>();
    for (const parameter of rest) {
      if (parameter === "") continue;
      const equals = parameter.indexOf("=");
      const name = equals < 0 ? parameter : parameter.slice(0, equals);
      if (parameters.has(name)) throw malformed("parameter", "a parameter is repeated");
      parameters.set(name, equals < 0 ? "" : parameter.slice(equals + 1));
    }
    const carriers = parseCarriers(parameters.get("carriers") ?? "");
    const range = /^([0-9]{1,3})\.\.([0-9]{1,3})$/.exec(
      parameters.get("len") ?? `${MIN_PAD_LENGTH}..${MAX_PAD_LENGTH}`,
    );
    const minPad = Number(range?.[1]);
    const maxPad = Number(range?.[2]);
    if (!isPadRange(minPad, maxPad)) {
      throw malformed("len", `the length is not a range within ${MIN_PAD_LENGTH}..${MAX_PAD_LENGTH}`);
    }
    const cookie = parameters.get("cookie") ?? DEFAULT_TICKET_COOKIE;
    if (!isToken(cookie)) throw malformed("cookie", "the cookie's name is not a token");
    return new TicketPolicy({ carriers, minPad, maxPad, cookie });
  }

  /** The value of the `BN-Ticket` header that says this policy. Carriers of weight 0 are left out. */
  toString(): string {
    const carriers = TICKET_CARRIERS.filter((carrier) => this.carriers[carrier] > 0)
      .map((carrier) => `${carrier}:${decimal(this.carriers[carrier])}`).join(",");
    return `v1; carriers=${carriers}; len=${this.minPad}..${this.maxPad}; cookie=${this.cookie}`;
  }
}

function parseCarriers(value: string): Partial<Record<TicketCarrier, number>> {
  const carriers: Partial<Record<TicketCarrier, number>> = {};
  let sum = 0;
  for (const item of value.split(",").map(trimBlanks)) {
    const colon = item.indexOf(":");
    const name = colon < 0 ? item : item.slice(0, colon);
    if (!isCarrier(name)) continue;
    const text = colon < 0 ? "" : item.slice(colon + 1);
    if (carriers[name] !== undefined) throw malformed("carriers", "a carrier is repeated");
    const weight = /^[0-9]+(?:\.[0-9]+)?$/.test(text) ? Number(text) : NaN;
    if (!Number.isFinite(weight)) throw malformed("carriers", "a weight is not a non-negative decimal");
    carriers[name] = weight;
    sum += weight;
  }
  if (Object.keys(carriers).length === 0) throw malformed("carriers", "no known carrier is named");
  if (!(sum > 0) || !Number.isFinite(sum)) throw malformed("carriers", "the weights do not add up");
  return carriers;
}

function isCarrier(name: string): name is TicketCarrier {
  return (TICKET_CARRIERS as readonly string[]).includes(name);
}

function isPadRange(least: number, most: number): boolean {
  return Number.isInteger(least) && Number.isInteger(most) &&
    MIN_PAD_LENGTH <= least && least <= most && most <= MAX_PAD_LENGTH;
}

/** RFC 9110 §5.6.2, which RFC 6265 §4.1.1 takes for cookie names. */
function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}

/** A positive number in digits, without an exponent; reads back as the same number. */
function decimal(value: number): string {
  const [mantissa = "", exponent] = String(value).split("e");
  if (exponent === undefined) return mantissa;
  const digits = mantissa.replace(".", "");
  const point = 1 + Number(exponent); // the mantissa has one digit before its point
  return point <= 0 ? `0.${"0".repeat(-point)}${digits}` : digits.padEnd(point, "0");
}

function malformed(field: string, why: string): HtxError {
  return new HtxError("MALFORMED", `Cannot parse ${TICKET_POLICY_HEADER} header: ${why}`, { field });
}

/**
 * Admission after the ticket: a ticket is good once, a web page needs forty requests. A session cookie stands for the
 * rest: stateless, authenticated with a gateway key, bound to an expiry.
 *
 *     0         1             9              17         33           65
 *     +---------+-------------+--------------+----------+------------+
 *     | version | issued      | expires      | id       | mac        |
 *     | 0x01    | uint64, s   | uint64, s    | 16 bytes | HMAC-SHA256|
 *     +---------+-------------+--------------+----------+------------+
 *
 *     value = Base64URL of it, no padding characters: 87 characters
 *     mac   = HMAC(key, "betanet-htx admission v1" ‖ 0 ‖ cookie name ‖ 0 ‖ context ‖ 0 ‖ the 33 bytes before it)
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  type Bytes,
  concat,
  type CryptoBackend,
  selectCrypto,
  timingSafeEqual,
  u64be,
  utf8,
} from "../core/mod.ts";
import { decodeBase64Url, encodeBase64Url } from "./_base64url.ts";
import { latest } from "./_clock.ts";
import { literalCookies, takeFromCookies } from "./extract.ts";

/** Seconds that an admission lasts. */
export const DEFAULT_ADMISSION_SECONDS = 15 * 60;
/** Seconds after which even an admission that is renewed ends. */
export const DEFAULT_MAX_ADMISSION_SECONDS = 12 * 60 * 60;
/** Name of the admission cookie, without the prefix it has where it is `Secure`. */
export const DEFAULT_ADMISSION_COOKIE = "sid";
/** Fewest bytes of a gateway key. */
export const MIN_ADMISSION_KEY_LENGTH = 32;

const VERSION = 0x01;
const ID_LENGTH = 16;
const BODY_LENGTH = 1 + 8 + 8 + ID_LENGTH;
const MAC_LENGTH = 32;
const TEXT_LENGTH = Math.ceil((BODY_LENGTH + MAC_LENGTH) * 8 / 6);
const LABEL = "betanet-htx admission v1";
/** Seconds that the clocks of gateways with one key may differ by. */
const CLOCK_SLACK_SECONDS = 60;

/**
 * Why a request has no admission: no cookie; more than one; not of this form or version; under none of the keys;
 * too old.
 */
export type AdmissionRefusal = "missing" | "repeated" | "malformed" | "not-ours" | "expired";

/** What {@linkcode AdmissionCookies.check} finds. */
export type AdmissionResult =
  | {
    /** The request is admitted. */
    readonly ok: true;
    /** Names the admission, for counters; 22 characters. Not what authenticates it. */
    readonly id: string;
    /** Milliseconds since 1970 at which it ends. */
    readonly expiresAt: number;
    /** A `set-cookie` value that prolongs it; only with `sliding`, and once half of its time has gone. */
    readonly renewal?: string;
  }
  | {
    /** The request is not admitted. */
    readonly ok: false;
    /** Why; not for the one who asks. */
    readonly reason: AdmissionRefusal;
  };

/** Options of {@linkcode AdmissionCookies}. */
export interface AdmissionOptions {
  /**
   * Gateway keys, 32 random bytes each, one at least. The first signs, all verify: to rotate, put the new one in front
   * and drop the old one when its cookies have expired; to revoke, drop it at once. Copied.
   */
  readonly keys: readonly Uint8Array[];
  /**
   * Whether cookies are `Secure` and named `__Host-…`. Only for listeners without TLS is this to be `false`, since
   * browsers refuse such cookies there.
   *
   * @default {true}
   */
  readonly secure?: boolean | undefined;
  /** Name, without prefix. @default {"sid"} */
  readonly name?: string | undefined;
  /** Seconds that an admission lasts. @default {900} */
  readonly seconds?: number | undefined;
  /** Whether use prolongs it. @default {false} */
  readonly sliding?: boolean | undefined;
  /** Seconds after which even a prolonged one ends. @default {the larger of `seconds` and 43200} */
  readonly maxSeconds?: number | undefined;
  /** Binds cookies to a site where several gateways have one key: its host name. @default {""} */
  readonly context?: string | undefined;
  /** Milliseconds since 1970. @default {Date.now} */
  readonly now?: (() => number) | undefined;
  /** Cryptographic random bytes. @default {the backend's} */
  readonly random?: ((length: number) => Uint8Array) | undefined;
  /** The primitives. @default {selectCrypto()} */
  readonly crypto?: CryptoBackend | undefined;
}

/**
 * Issues and checks admission cookies.
 *
 * @example From ticket to session
 * ```ts
 * import { AdmissionCookies } from "@betanet/htx/tickets";
 * import { assert } from "@std/assert";
 *
 * const admission = new AdmissionCookies({ keys: [crypto.getRandomValues(new Uint8Array(32))] });
 * const setCookie = admission.issue(); // after a valid ticket
 * assert(setCookie.startsWith("__Host-sid="));
 * assert(setCookie.endsWith("; Max-Age=900; Path=/; Secure; HttpOnly; SameSite=Lax"));
 *
 * const [cookie] = setCookie.split(";");
 * assert(admission.check([cookie!]).ok);
 * assert(!admission.check(["__Host-sid=junk"]).ok);
 * ```
 */
export class AdmissionCookies {
  readonly #crypto: CryptoBackend;
  readonly #random: (length: number) => Uint8Array;
  readonly #clock: () => number;
  readonly #name: string;
  readonly #secure: boolean;
  readonly #sliding: boolean;
  readonly #seconds: number;
  readonly #maxSeconds: number;
  readonly #binding: Bytes;
  #keys: readonly Bytes[];
  #now = 0;

  /**
   * Makes the cookies of one listener.
   *
   * @throws {TypeError} when there is no key, or the name is no cookie name
   * @throws {RangeError} when a key is shorter than 32 bytes, or a time is not a positive integer
   */
  constructor(options: AdmissionOptions) {
    const { secure = true, name = DEFAULT_ADMISSION_COOKIE, sliding = false, context = "" } = options;
    const { seconds = DEFAULT_ADMISSION_SECONDS, now = Date.now, crypto = selectCrypto() } = options;
    const { maxSeconds = Math.max(seconds, DEFAULT_MAX_ADMISSION_SECONDS) } = options;
    if (!/^[!#$&'*+\-.^_`|~0-9A-Za-z]+$/.test(name) || /^__(?:host|secure)-/i.test(name)) {
      throw new TypeError("Cannot make admission cookies: the name is not a plain cookie name");
    }
    for (const [what, value] of [["seconds", seconds], ["maxSeconds", maxSeconds]] as const) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new RangeError(`Cannot make admission cookies: ${what} is ${value}, not a positive integer`);
      }
    }
    this.#crypto = crypto;
    this.#random = options.random ?? ((length) => crypto.randomBytes(length));
    this.#clock = now;
    this.#name = secure ? `__Host-${name}` : name;
    this.#secure = secure;
    this.#sliding = sliding;
    this.#seconds = seconds;
    this.#maxSeconds = maxSeconds;
    this.#binding = utf8(`${LABEL}\0${this.#name}\0${context}\0`);
    this.#keys = copyKeys(options.keys);
  }

  /** The cookie's name, prefix included. */
  get name(): string {
    return this.#name;
  }

  /**
   * Replaces the keys. Cookies under a key that is gone are worth nothing from now on.
   *
   * @throws {TypeError} when there is no key; the old ones stay then
   * @throws {RangeError} when a key is shorter than 32 bytes; the old ones stay then
   */
  setKeys(keys: readonly Uint8Array[]): void {
    const old = this.#keys;
    this.#keys = copyKeys(keys);
    for (const key of old) key.fill(0);
  }

  /** A `set-cookie` value that admits whoever sends it back. */
  issue(): string {
    const now = this.#nowSeconds();
    return this.#setCookie(now, Math.min(this.#seconds, this.#maxSeconds), this.#random(ID_LENGTH), now);
  }

  /** A `set-cookie` value that makes the client forget its admission. */
  expire(): string {
    return `${this.#name}=; Max-Age=0; ${this.#attributes()}`;
  }

  /**
   * Whether a request is admitted.
   *
   * @param cookies its `cookie` lines
   */
  check(cookies: readonly string[]): AdmissionResult {
    return this.take(cookies).result;
  }

  /**
   * As {@linkcode check}, and the `cookie` lines without admission cookies, byte for byte: they are as good as a password
   * and nobody's business behind the gateway.
   *
   * Only the name as it is counts: browsers keep `__Host-` from other hosts and from plain HTTP, but not `__%48ost-`, by
   * which a stranger could add a second cookie to a visitor's and so shut him out. In other spellings it is taken out.
   */
  take(cookies: readonly string[]): { readonly result: AdmissionResult; readonly rest: readonly string[] } {
    const values: string[] = [];
    const lines: string[] = [];
    for (const line of cookies) {
      const taken = takeFromCookies(line, this.#name);
      for (const value of literalCookies(line, this.#name)) values.push(value);
      if (taken.rest !== undefined) lines.push(taken.rest);
    }
    return { result: this.#judge(values), rest: lines };
  }

  #judge(values: readonly string[]): AdmissionResult {
    const [value] = values;
    if (value === undefined) return { ok: false, reason: "missing" };
    if (values.length > 1) return { ok: false, reason: "repeated" };
    const token = value.length === TEXT_LENGTH ? decodeBase64Url(value) : undefined;
    if (token === undefined || token[0] !== VERSION) return { ok: false, reason: "malformed" };
    const body = token.subarray(0, BODY_LENGTH);
    const mac = token.subarray(BODY_LENGTH);
    let ours = false;
    for (const key of this.#keys) { // all of them, whichever fits
      ours = timingSafeEqual(this.#mac(key, body), mac) || ours;
    }
    if (!ours) return { ok: false, reason: "not-ours" };
    const view = new DataView(token.buffer, token.byteOffset, token.byteLength);
    const issued = Number(view.getBigUint64(1));
    const expires = Number(view.getBigUint64(9));
    const now = this.#nowSeconds();
    if (now >= expires || issued > now + CLOCK_SLACK_SECONDS) return { ok: false, reason: "expired" };
    const id = token.subarray(BODY_LENGTH - ID_LENGTH, BODY_LENGTH);
    const admitted = { ok: true, id: encodeBase64Url(id), expiresAt: expires * 1000 } as const;
    const left = Math.min(this.#seconds, issued + this.#maxSeconds - now);
    if (!this.#sliding || (expires - now) * 2 > this.#seconds || now + left <= expires) return admitted;
    return { ...admitted, renewal: this.#setCookie(issued, left, id, now) };
  }

  #setCookie(issued: number, seconds: number, id: Uint8Array, now: number): string {
    const body = concat(Uint8Array.of(VERSION), u64be(issued), u64be(now + seconds), id);
    const value = encodeBase64Url(concat(body, this.#mac(this.#keys[0]!, body)));
    return `${this.#name}=${value}; Max-Age=${seconds}; ${this.#attributes()}`;
  }

  #attributes(): string {
    return `Path=/; ${this.#secure ? "Secure; " : ""}HttpOnly; SameSite=Lax`;
  }

  #mac(key: Uint8Array, body: Uint8Array): Bytes {
    return this.#crypto.hmacSha256(key, this.#binding, body);
  }

  /** Whole seconds since 1970; never goes back, so that what has expired stays so. */
  #nowSeconds(): number {
    this.#now = latest(this.#now, Math.floor(this.#clock() / 1000));
    return this.#now;
  }
}

function copyKeys(keys: readonly Uint8Array[]): readonly Bytes[] {
  if (keys.length === 0) throw new TypeError("Cannot use admission keys: there is none");
  for (const key of keys) {
    if (key.length < MIN_ADMISSION_KEY_LENGTH) {
      throw new RangeError(
        `Cannot use admission keys: one has ${key.length} bytes, ${MIN_ADMISSION_KEY_LENGTH} are needed`,
      );
    }
  }
  return keys.map((key) => new Uint8Array(key));
}

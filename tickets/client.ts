/**
 * Making tickets and putting them into requests (HTX 1.1 §6).
 *
 * A ticket seen in clear can be stolen and spent first: tickets belong inside TLS. {@linkcode TicketClient} refuses
 * to put one into a plain `http:` request to anywhere but this machine, unless it is told otherwise.
 *
 * This module is browser compatible; in browsers the cookie carrier is not, since pages may not set that header.
 *
 * @module
 */

import { type Bytes, concat, copyOf, type CryptoBackend, selectCrypto, utf8 } from "../core/mod.ts";
import { MAX_TICKET_BODY_LENGTH, mayCarryTicket } from "./extract.ts";
import {
  deriveAccessTicket,
  deriveTicketSalt,
  encodeTicket,
  TICKET_KEY_ID_LENGTH,
  TICKET_NONCE_LENGTH,
  ticketHour,
} from "./payload.ts";
import { TICKET_CARRIERS, TICKET_PARAMETER, type TicketCarrier, TicketPolicy } from "./policy.ts";

const FORM_TYPE = "application/x-www-form-urlencoded";
const PRIVATE_KEY_LENGTH = 32;

/** What a client has to know of a site's ticket key; reaches it by configuration. */
export interface TicketPublicKey {
  /** The X25519 public key, 32 bytes (`ticketPub`). */
  readonly publicKey: Uint8Array;
  /** The key's id, 8 bytes. */
  readonly keyId: Uint8Array;
}

/** A ticket key as the verifier holds it. */
export interface TicketKey {
  /** The X25519 private key, 32 bytes. */
  readonly privateKey: Uint8Array;
  /** The key's id, 8 bytes. */
  readonly keyId: Uint8Array;
}

/** Options of {@linkcode makeTicket}. */
export interface MakeTicketOptions {
  /** The site's policy: pad range and cookie name are used. @default {new TicketPolicy()} */
  readonly policy?: TicketPolicy | undefined;
  /** Milliseconds since 1970. @default {Date.now} */
  readonly now?: (() => number) | undefined;
  /** Cryptographic random bytes. @default {the backend's} */
  readonly random?: ((length: number) => Uint8Array) | undefined;
  /** The primitives. @default {selectCrypto()} */
  readonly crypto?: CryptoBackend | undefined;
  /** Fixes the ephemeral private key. Two tickets of one key and hour are one ticket: the second is refused. */
  readonly ephemeralPrivateKeyForTestingOnly?: Uint8Array | undefined;
}

/**
 * A fresh ticket key pair, of which `privateKey` stays with the verifier.
 *
 * @param keyId the id to give it, 8 bytes; random if left out
 * @throws {RangeError} when `keyId` has another length
 */
export function generateTicketKey(
  keyId?: Uint8Array,
  options: { readonly crypto?: CryptoBackend | undefined } = {},
): TicketKey & TicketPublicKey {
  const { crypto = selectCrypto() } = options;
  if (keyId !== undefined) requireLength("generate ticket key", "keyId", keyId, TICKET_KEY_ID_LENGTH);
  const privateKey = crypto.randomBytes(PRIVATE_KEY_LENGTH);
  return {
    privateKey,
    publicKey: ticketPublicKey(privateKey, { crypto }),
    keyId: keyId === undefined ? crypto.randomBytes(TICKET_KEY_ID_LENGTH) : copyOf(keyId),
  };
}

/**
 * The public half of a ticket key (`ticketPub`).
 *
 * @throws {RangeError} when `privateKey` has not 32 bytes
 */
export function ticketPublicKey(
  privateKey: Uint8Array,
  options: { readonly crypto?: CryptoBackend | undefined } = {},
): Bytes {
  const { crypto = selectCrypto() } = options;
  requireLength("derive ticket public key", "privateKey", privateKey, PRIVATE_KEY_LENGTH);
  const key = crypto.x25519(privateKey);
  const publicKey = key.publicKey.slice();
  key.wipe();
  return publicKey;
}

/**
 * Makes a ticket under a fresh ephemeral key. It verifies once, in its hour and the hours beside it.
 *
 * @param key the site's ticket key
 * @returns 172 to 226 characters of Base64URL
 * @throws {RangeError} when a part of `key` has a wrong length
 * @throws {TypeError} when `key.publicKey` is no usable X25519 key
 *
 * @example A ticket
 * ```ts
 * import { generateTicketKey, makeTicket, TicketVerifier } from "@betanet/htx/tickets";
 * import { assert } from "@std/assert";
 *
 * const key = generateTicketKey();
 * const ticket = makeTicket(key);
 *
 * const verifier = new TicketVerifier({ keys: [key] });
 * assert((await verifier.verify(ticket)).ok);
 * assert(!(await verifier.verify(ticket)).ok); // good once
 * ```
 */
export function makeTicket(key: TicketPublicKey, options: MakeTicketOptions = {}): string {
  const { crypto = selectCrypto(), policy = new TicketPolicy(), now = Date.now } = options;
  const { ephemeralPrivateKeyForTestingOnly } = options;
  const random = options.random ?? ((length: number) => crypto.randomBytes(length));
  requireLength("make ticket", "publicKey", key.publicKey, 32);
  requireLength("make ticket", "keyId", key.keyId, TICKET_KEY_ID_LENGTH);
  const ephemeral = crypto.x25519(ephemeralPrivateKeyForTestingOnly ?? random(PRIVATE_KEY_LENGTH));
  const shared = ephemeral.dh(key.publicKey);
  const clientPub = ephemeral.publicKey.slice();
  ephemeral.wipe();
  if (shared === undefined) throw new TypeError("Cannot make ticket: the public key is of low order");
  const salt = deriveTicketSalt(crypto, key.keyId, ticketHour(now()));
  const accessTicket = deriveAccessTicket(crypto, shared, salt);
  shared.fill(0);
  const padLength = policy.minPad + uniformBelow(policy.maxPad - policy.minPad + 1, random);
  return encodeTicket({
    clientPub,
    ticketKeyId: key.keyId,
    nonce: random(TICKET_NONCE_LENGTH),
    accessTicket,
    pad: random(padLength),
  });
}

/** As {@linkcode makeTicket}, as a cookie pair `<name>=<text>` for the `cookie` header. */
export function makeTicketCookie(key: TicketPublicKey, options: MakeTicketOptions = {}): string {
  const { policy = new TicketPolicy() } = options;
  return `${policy.cookie}=${makeTicket(key, options)}`;
}

/** As {@linkcode makeTicket}, as a query parameter `bn1=<text>`, to be joined with `?` or `&`. */
export function makeTicketQuery(key: TicketPublicKey, options: MakeTicketOptions = {}): string {
  return `${TICKET_PARAMETER}=${makeTicket(key, options)}`;
}

/** As {@linkcode makeTicket}, as a field `bn1=<text>` of an `application/x-www-form-urlencoded` body. */
export function makeTicketBody(key: TicketPublicKey, options: MakeTicketOptions = {}): string {
  return makeTicketQuery(key, options);
}

/**
 * Draws a carrier by the policy's weights.
 *
 * @param policy the site's
 * @param random cryptographic random bytes
 * @param among the carriers that the request at hand can take; the weights of the others count as 0
 * @returns `undefined` when every carrier in `among` weighs 0
 */
export function chooseCarrier(
  policy: TicketPolicy,
  random: (length: number) => Uint8Array = (length) => selectCrypto().randomBytes(length),
  among: readonly TicketCarrier[] = TICKET_CARRIERS,
): TicketCarrier | undefined {
  const candidates = TICKET_CARRIERS.filter((carrier) =>
    among.includes(carrier) && policy.shares[carrier] > 0
  );
  const sum = candidates.reduce((total, carrier) => total + policy.shares[carrier], 0);
  let point = randomFraction(random) * sum;
  for (const carrier of candidates) {
    point -= policy.shares[carrier];
    if (point < 0) return carrier;
  }
  return candidates.at(-1); // rounding alone leads here
}

/** Options of {@linkcode TicketClient}. */
export interface TicketClientOptions extends MakeTicketOptions {
  /** Always this carrier, whatever the policy's weights. @default {drawn for each request} */
  readonly carrier?: TicketCarrier | undefined;
  /**
   * Puts tickets into `http:` and `ws:` requests to other machines too, where whoever sees one can spend it first.
   *
   * @default {false}
   */
  readonly dangerouslyAllowCleartext?: boolean | undefined;
}

/** Options of {@linkcode TicketClient.fetch}. */
export interface TicketFetchOptions {
  /**
   * Tells an answer of the site behind the gateway from its decoy. With it, a request that met the decoy is sent once
   * more under a new ticket: the first may have been stolen and spent by somebody on the way.
   *
   * @default {(response) => true}
   */
  readonly admitted?: ((response: Response) => boolean | Promise<boolean>) | undefined;
  /** Requests to send at most; without `admitted` it is one. @default {2} */
  readonly attempts?: number | undefined;
  /** How to send one. @default {globalThis.fetch} */
  readonly fetch?: ((request: Request) => Promise<Response>) | undefined;
}

/**
 * Puts a fresh ticket into each request.
 *
 * @example A request with a ticket in its query
 * ```ts
 * import { generateTicketKey, TicketClient } from "@betanet/htx/tickets";
 * import { assert } from "@std/assert";
 *
 * const client = new TicketClient(generateTicketKey(), { carrier: "query" });
 * const request = await client.apply(new Request("https://site.example/page?x=1"));
 * assert(request.url.startsWith("https://site.example/page?x=1&bn1="));
 * ```
 */
export class TicketClient {
  readonly #key: TicketPublicKey;
  readonly #options: TicketClientOptions;
  readonly #policy: TicketPolicy;
  readonly #random: (length: number) => Uint8Array;

  /**
   * Makes a client of one site.
   *
   * @param key the site's ticket key
   * @throws {RangeError} when a part of `key` has a wrong length
   */
  constructor(key: TicketPublicKey, options: TicketClientOptions = {}) {
    requireLength("make ticket client", "publicKey", key.publicKey, 32);
    requireLength("make ticket client", "keyId", key.keyId, TICKET_KEY_ID_LENGTH);
    this.#key = { publicKey: copyOf(key.publicKey), keyId: copyOf(key.keyId) };
    this.#options = options;
    this.#policy = options.policy ?? new TicketPolicy();
    this.#random = options.random ?? ((length) => (options.crypto ?? selectCrypto()).randomBytes(length));
  }

  /** The policy it follows. */
  get policy(): TicketPolicy {
    return this.#policy;
  }

  /** A ticket's text, for whoever places it. */
  ticket(): string {
    return makeTicket(this.#key, this.#options);
  }

  /**
   * A URL with a fresh ticket in its query, for what has a URL and no headers: a WebSocket of a browser, a link.
   *
   * @throws {TypeError} when the URL is none, or its request would travel in clear
   */
  addToUrl(url: string | URL): string {
    const text = String(url);
    this.#requirePrivacy(new URL(text));
    return addToQuery(text, `${TICKET_PARAMETER}=${this.ticket()}`);
  }

  /**
   * A copy of the request with a ticket in it; the original, whose body the copy takes, is to be used no more. The carrier
   * is drawn among those that this request can take: a body only for a POST of a small form, or one without a body.
   *
   * @throws {TypeError} when the request can take no carrier of the policy, or would travel in clear
   */
  async apply(request: Request): Promise<Request> {
    this.#requirePrivacy(new URL(request.url));
    const text = this.ticket();
    const form = await readForm(request, text.length + TICKET_PARAMETER.length + 2);
    const among: TicketCarrier[] = form === undefined ? ["cookie", "query"] : ["cookie", "query", "body"];
    const { carrier = chooseCarrier(this.#policy, this.#random, among) } = this.#options;
    if (carrier === undefined || !among.includes(carrier)) {
      throw new TypeError(
        `Cannot add ticket: a ${request.method} request like this has no place for it in ${
          carrier ?? "any carrier of the policy"
        }`,
      );
    }
    const headers = new Headers(request.headers);
    // `new Request(url, request)` hands the body on; a form was read above and is given again
    const init: RequestInit = form === undefined ? { headers } : { headers, body: form };
    switch (carrier) {
      case "cookie": {
        const others = headers.get("cookie");
        const pair = `${this.#policy.cookie}=${text}`;
        headers.set("cookie", others === null || others === "" ? pair : `${others}; ${pair}`);
        return rebuild(request, request.url, init);
      }
      case "query":
        return rebuild(request, addToQuery(request.url, `${TICKET_PARAMETER}=${text}`), init);
      case "body": {
        const field = utf8(`${TICKET_PARAMETER}=${text}`);
        headers.set("content-type", headers.get("content-type") ?? FORM_TYPE);
        headers.delete("content-length");
        const body = form === undefined || form.length === 0 ? field : concat(form, utf8("&"), field);
        return rebuild(request, request.url, { headers, body });
      }
    }
  }

  /**
   * Sends a request with a ticket in it. Only a request whose repetition does no harm should be given `admitted`: a
   * gateway's decoy answers without passing anything on, but what looks like one may be something else.
   *
   * @throws {TypeError} as {@linkcode apply}, or as `fetch` does
   * @throws {RangeError} when `attempts` is not a positive integer
   */
  async fetch(request: Request, options: TicketFetchOptions = {}): Promise<Response> {
    const { admitted, attempts = 2, fetch = (request: Request) => globalThis.fetch(request) } = options;
    if (!Number.isInteger(attempts) || attempts < 1) {
      throw new RangeError(`Cannot send request: attempts is ${attempts}, not a positive integer`);
    }
    if (admitted !== undefined) {
      for (let left = attempts; left > 1; left--) {
        // A copy keeps its body in memory: only what may be sent again is worth one.
        const response = await fetch(await this.apply(request.clone()));
        if (await admitted(response)) return response;
        if (response.body?.locked === false) await response.body.cancel();
      }
    }
    return await fetch(await this.apply(request));
  }

  #requirePrivacy(url: URL): void {
    if (this.#options.dangerouslyAllowCleartext || !isCleartext(url)) return;
    throw new TypeError(
      "Cannot add ticket: the request would travel in clear, where whoever sees the ticket can spend it",
    );
  }
}

/** The bytes of a form that has room for a ticket; `undefined` where the request has no such body. Uses it up. */
async function readForm(request: Request, room: number): Promise<Bytes | undefined> {
  const empty = request.body === null;
  const fields = {
    method: request.method,
    contentType: request.headers.get("content-type") ?? (empty ? FORM_TYPE : null), // where there is nothing, it is given
    contentEncoding: request.headers.get("content-encoding"),
    contentLength: request.headers.get("content-length") ?? "0", // not there yet where the body is a string or bytes
  };
  if (!mayCarryTicket(fields)) return undefined;
  const copy = request.clone().body;
  if (copy === null) return new Uint8Array(0);
  let form: Bytes = new Uint8Array(0);
  for await (const chunk of copy.pipeThrough(new TransformStream(), { signal: request.signal })) {
    if (form.length + chunk.length + room > MAX_TICKET_BODY_LENGTH) return undefined; // leaving cancels the copy
    form = concat(form, chunk);
  }
  return form;
}

function rebuild(request: Request, url: string, init: RequestInit): Request {
  const body = init.body === undefined ? request.body : init.body;
  const {
    method,
    mode,
    credentials,
    cache,
    redirect,
    referrer,
    referrerPolicy,
    integrity,
    keepalive,
    signal,
  } = request;
  return new Request(url, {
    method,
    headers: init.headers ?? request.headers,
    ...(body === null ? {} : { body, ...(body instanceof ReadableStream ? { duplex: "half" } : {}) }),
    ...(mode === "navigate" ? {} : { mode }), // which only a browser may say
    credentials,
    cache,
    redirect,
    referrer,
    referrerPolicy,
    integrity,
    keepalive,
    signal,
  });
}

function addToQuery(url: string, pair: string): string {
  const hash = url.indexOf("#");
  const end = hash < 0 ? url.length : hash;
  const base = url.slice(0, end);
  return `${base}${base.includes("?") ? "&" : "?"}${pair}${url.slice(end)}`;
}

function isCleartext(url: URL): boolean {
  if (url.protocol === "https:" || url.protocol === "wss:") return false;
  const host = url.hostname;
  return !(host === "localhost" || host.endsWith(".localhost") || host === "[::1]" ||
    /^127(?:\.[0-9]{1,3}){3}$/.test(host));
}

/** Uniform in 0..count-1: draws that would favour the small values are thrown away. */
function uniformBelow(count: number, random: (length: number) => Uint8Array): number {
  const fair = 2 ** 32 - 2 ** 32 % count;
  for (;;) {
    const drawn = uint32(random(4));
    if (drawn < fair) return drawn % count;
  }
}

/** Uniform in [0, 1), in steps of 2^-53. */
function randomFraction(random: (length: number) => Uint8Array): number {
  const bytes = random(8);
  return (uint32(bytes.subarray(0, 4)) * 2 ** 21 + (uint32(bytes.subarray(4)) >>> 11)) / 2 ** 53;
}

function uint32(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0);
}

function requireLength(verb: string, name: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new RangeError(`Cannot ${verb}: ${name} has ${bytes.length} bytes, not ${length}`);
  }
}

/**
 * The ticket itself: payload, text and the derivation that proves it (HTX 1.1 §6). No I/O, no state.
 *
 *     0         1           33       41       73              105            129..169
 *     +---------+-----------+--------+--------+---------------+--------------+
 *     | version | clientPub | keyId  | nonce  | accessTicket  | pad          |
 *     | 0x01    | 32 bytes  | 8      | 32     | 32            | 24..64 bytes |
 *     +---------+-----------+--------+--------+---------------+--------------+
 *
 *     text = Base64URL(payload), no padding characters: 172..226 characters
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Bytes, concat, copyOf, type CryptoBackend, HtxError, u64be, utf8 } from "../core/mod.ts";
import { decodeBase64Url, encodeBase64Url } from "./_base64url.ts";

/** First byte of a payload (§6). */
export const TICKET_VERSION = 0x01;
/** Bytes of an X25519 public key. */
export const CLIENT_PUB_LENGTH = 32;
/** Bytes of a ticket key id. */
export const TICKET_KEY_ID_LENGTH = 8;
/** Bytes of the nonce. */
export const TICKET_NONCE_LENGTH = 32;
/** Bytes of the access ticket proper. */
export const ACCESS_TICKET_LENGTH = 32;
/** Fewest pad bytes. */
export const MIN_PAD_LENGTH = 24;
/** Most pad bytes. */
export const MAX_PAD_LENGTH = 64;
/** Fewest characters of a ticket's text. */
export const MIN_TICKET_TEXT_LENGTH = 172;
/** Most characters of a ticket's text. */
export const MAX_TICKET_TEXT_LENGTH = 226;
/** Seconds in the unit of time that tickets are bound to. */
export const TICKET_HOUR_SECONDS = 3600;

const SALT_LABEL = "betanet-ticket-v1";
const NO_INFO = /* @__PURE__ */ new Uint8Array(0);

const CLIENT_PUB_AT = 1;
const KEY_ID_AT = CLIENT_PUB_AT + CLIENT_PUB_LENGTH;
const NONCE_AT = KEY_ID_AT + TICKET_KEY_ID_LENGTH;
const ACCESS_TICKET_AT = NONCE_AT + TICKET_NONCE_LENGTH;
const PAD_AT = ACCESS_TICKET_AT + ACCESS_TICKET_LENGTH;

/** The parts of a ticket of version 1. */
export interface TicketPayload {
  /** The client's ephemeral X25519 public key, 32 bytes. */
  readonly clientPub: Uint8Array;
  /** Which ticket key it was made for, 8 bytes. */
  readonly ticketKeyId: Uint8Array;
  /** 32 random bytes, bound to nothing. */
  readonly nonce: Uint8Array;
  /** The proof, 32 bytes: see {@linkcode deriveAccessTicket}. */
  readonly accessTicket: Uint8Array;
  /** 24 to 64 random bytes that vary the length. */
  readonly pad: Uint8Array;
}

/**
 * The text of a ticket.
 *
 * @param payload the parts, each of its exact length
 * @returns 172 to 226 characters of unpadded Base64URL
 * @throws {RangeError} when a part has another length than the format allows
 */
export function encodeTicket(payload: TicketPayload): string {
  const { clientPub, ticketKeyId, nonce, accessTicket, pad } = payload;
  requireLength("clientPub", clientPub, CLIENT_PUB_LENGTH, CLIENT_PUB_LENGTH);
  requireLength("ticketKeyId", ticketKeyId, TICKET_KEY_ID_LENGTH, TICKET_KEY_ID_LENGTH);
  requireLength("nonce", nonce, TICKET_NONCE_LENGTH, TICKET_NONCE_LENGTH);
  requireLength("accessTicket", accessTicket, ACCESS_TICKET_LENGTH, ACCESS_TICKET_LENGTH);
  requireLength("pad", pad, MIN_PAD_LENGTH, MAX_PAD_LENGTH);
  return encodeBase64Url(
    concat(Uint8Array.of(TICKET_VERSION), clientPub, ticketKeyId, nonce, accessTicket, pad),
  );
}

/**
 * The parts of a ticket's text. Strict: one spelling per payload, and no length outside the format's. Says nothing
 * about whether the ticket is any good; that is {@linkcode TicketVerifier}'s part.
 *
 * @param text as it was sent
 * @returns the parts, aliasing nothing
 * @throws {HtxError} `MALFORMED` with `field` `"text"`, `"length"` or `"version"`
 *
 * @example Reading a ticket
 * ```ts
 * import { decodeTicket, generateTicketKey, makeTicket } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * const key = generateTicketKey();
 * const parts = decodeTicket(makeTicket(key));
 * assertEquals(parts.ticketKeyId, key.keyId);
 * ```
 */
export function decodeTicket(text: string): TicketPayload {
  const read = readTicket(text);
  if (typeof read === "string") {
    throw new HtxError("MALFORMED", `Cannot decode ticket: ${MESSAGES[read]}`, { field: read });
  }
  return read;
}

/** Why a text is no ticket of version 1. */
export type TicketTextFault = "length" | "text" | "version";

const MESSAGES: Record<TicketTextFault, string> = {
  length: `the text has not ${MIN_TICKET_TEXT_LENGTH} to ${MAX_TICKET_TEXT_LENGTH} characters`,
  text: "the text is not canonical Base64URL",
  version: `the version is not ${TICKET_VERSION}`,
};

/** As {@linkcode decodeTicket}, with the fault as a value: refusals are the ordinary case for a verifier. */
export function readTicket(text: string): TicketPayload | TicketTextFault {
  if (text.length < MIN_TICKET_TEXT_LENGTH || text.length > MAX_TICKET_TEXT_LENGTH) return "length";
  const bytes = decodeBase64Url(text);
  if (bytes === undefined) return "text";
  if (bytes[0] !== TICKET_VERSION) return "version";
  return {
    clientPub: bytes.slice(CLIENT_PUB_AT, KEY_ID_AT),
    ticketKeyId: bytes.slice(KEY_ID_AT, NONCE_AT),
    nonce: bytes.slice(NONCE_AT, ACCESS_TICKET_AT),
    accessTicket: bytes.slice(ACCESS_TICKET_AT, PAD_AT),
    pad: copyOf(bytes.subarray(PAD_AT)),
  };
}

/**
 * The hour that a time falls into.
 *
 * @param now milliseconds since 1970
 */
export function ticketHour(now: number): number {
  return Math.max(0, Math.floor(now / (TICKET_HOUR_SECONDS * 1000)));
}

/**
 * `SHA-256("betanet-ticket-v1" ‖ ticketKeyId ‖ uint64 hour)`: the same for every ticket of a key and an hour.
 *
 * @param crypto the primitives
 * @param ticketKeyId 8 bytes
 * @param hour see {@linkcode ticketHour}
 */
export function deriveTicketSalt(crypto: CryptoBackend, ticketKeyId: Uint8Array, hour: number): Bytes {
  return crypto.sha256(utf8(SALT_LABEL), ticketKeyId, u64be(hour));
}

/**
 * `HKDF(shared, salt, "", 32)`: what proves that whoever made the ticket knew the ticket key's public half.
 *
 * @param crypto the primitives
 * @param shared the X25519 value of the client's ephemeral key and the ticket key
 * @param salt see {@linkcode deriveTicketSalt}
 */
export function deriveAccessTicket(crypto: CryptoBackend, shared: Uint8Array, salt: Uint8Array): Bytes {
  return crypto.hkdfSha256(shared, salt, NO_INFO, ACCESS_TICKET_LENGTH);
}

function requireLength(name: string, bytes: Uint8Array, least: number, most: number): void {
  if (bytes.length < least || bytes.length > most) {
    const allowed = least === most ? `${least}` : `${least} to ${most}`;
    throw new RangeError(
      `Cannot encode ticket: ${name} has ${bytes.length} bytes, the format has ${allowed}`,
    );
  }
}

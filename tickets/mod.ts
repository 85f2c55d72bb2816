/**
 * Access tickets: who may reach a gateway at all (HTX 1.1 §6).
 *
 * A site has an X25519 ticket key. A client that knows its public half makes a ticket under a fresh ephemeral key and
 * hides it in an ordinary request: in a cookie, in the query, or in a form. The gateway finds it, takes it out,
 * verifies it and spends it; whoever has none, or a bad one, gets the decoy. A ticket is good once, in its hour and
 * the hours beside it; an admission cookie stands for the requests after it.
 *
 * What tickets do not do: whoever sees one in clear can spend it first, so they belong inside TLS. They are bound to
 * no session and to no connection.
 *
 * @example Client and gateway
 * ```ts
 * import { extractTickets, generateTicketKey, TicketClient, TicketVerifier } from "@betanet/htx/tickets";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const key = generateTicketKey();
 *
 * // The client knows { publicKey, keyId }.
 * const client = new TicketClient(key, { carrier: "query" });
 * const request = await client.apply(new Request("https://site.example/page?x=1"));
 *
 * // The gateway holds { privateKey, keyId }.
 * const verifier = new TicketVerifier({ keys: [key] });
 * const { pathname, search } = new URL(request.url);
 * const found = extractTickets({ target: pathname + search });
 * assert((await verifier.verify(found.tickets, { address: "192.0.2.1" })).ok);
 * assertEquals(found.target, "/page?x=1");
 * ```
 *
 * @module
 */

export {
  type Aead,
  type Bytes,
  CloseCode,
  type CloseCodeName,
  type CryptoBackend,
  type DhPrivateKey,
  type Encapsulation,
  HtxError,
  type HtxErrorCode,
  type HtxErrorOptions,
  type KemPrivateKey,
} from "../core/mod.ts";
export * from "./address.ts";
export * from "./admission.ts";
export * from "./client.ts";
export {
  type ExtractedTickets,
  extractTickets,
  type FoundTicket,
  MAX_TICKET_BODY_LENGTH,
  mayCarryTicket,
  takeFromCookies,
  takeFromForm,
  takeFromTarget,
  type Taken,
  type TicketBodyFields,
  type TicketRequestParts,
} from "./extract.ts";
export * from "./gate.ts";
export { DEFAULT_KV_CAPACITY, KvReplayStore, type KvReplayStoreOptions } from "./kv_store.ts";
export {
  ACCESS_TICKET_LENGTH,
  CLIENT_PUB_LENGTH,
  decodeTicket,
  encodeTicket,
  MAX_PAD_LENGTH,
  MAX_TICKET_TEXT_LENGTH,
  MIN_PAD_LENGTH,
  MIN_TICKET_TEXT_LENGTH,
  TICKET_HOUR_SECONDS,
  TICKET_KEY_ID_LENGTH,
  TICKET_NONCE_LENGTH,
  TICKET_VERSION,
  ticketHour,
  type TicketPayload,
} from "./payload.ts";
export {
  DEFAULT_TICKET_COOKIE,
  TICKET_CARRIERS,
  TICKET_PARAMETER,
  TICKET_POLICY_HEADER,
  type TicketCarrier,
  TicketPolicy,
  type TicketPolicyInit,
} from "./policy.ts";
export {
  DEFAULT_MAX_BUCKETS,
  DEFAULT_TICKET_BURST,
  DEFAULT_TICKETS_PER_MINUTE,
  MemoryRateLimiter,
  type MemoryRateLimiterOptions,
  type RateLimiter,
  type TokenBucketOptions,
} from "./rate_limiter.ts";
export {
  DEFAULT_REDIS_COMMAND_TIMEOUT_MS,
  DEFAULT_REDIS_CONNECT_TIMEOUT_MS,
  RedisTicketStore,
  type RedisTicketStoreOptions,
} from "./redis_store.ts";
export {
  DEFAULT_REPLAY_CAPACITY,
  MemoryReplayStore,
  type MemoryReplayStoreOptions,
  REPLAY_KEEP_HOURS,
  type ReplayAnswer,
  type ReplayStore,
  type TicketClaim,
} from "./replay_store.ts";
export * from "./testing.ts";
export * from "./verifier.ts";

/**
 * The rules of the network above the transport (Betanet 1.1), as pure functions and small state machines: nothing here
 * opens a connection, and no clock or random source is used that was not passed in or can be.
 *
 * | file | subject |
 * |---|---|
 * | `identity.ts`, `transports.ts` | peer ids; which transport two peers use |
 * | `paths.ts` | several paths to one destination: choice, fail-over, probing |
 * | `bootstrap.ts`, `pow.ts` | rendezvous ids, proof of work and its difficulty, admission, finding first peers |
 * | `privacy.ts`, `vrf.ts` | how many hops, and which: verifiable draws (RFC 9381) |
 * | `trust.ts` | how far a peer is trusted |
 * | `naming.ts`, `certificate.ts` | self-certifying ids, alias records, finality, quorum certificates |
 * | `payments.ts` | vouchers, keysets, settlement |
 * | `weights.ts`, `governance.ts` | voting weights under their caps, proposals, activation |
 * | `transition.ts` | the signed control map on stream 2 of a session |
 * | `cbor.ts` | strict CBOR for all of these |
 *
 * Conventions: a rule's verdict is a value with `ok` and, when that is false, a `reason`, or the list of `conditions`;
 * what comes from outside and does not parse throws {@linkcode HtxError} `MALFORMED` with the offending `field`; a
 * caller's mistake is a `TypeError` or `RangeError`. Rules take time in Unix **seconds**, as their texts do;
 * {@linkcode PathSet}, injected clocks (`now: () => number`) and {@linkcode verifyControlMap} take **milliseconds**.
 * Money, versions and everything else that can pass 2^53 is bigint.
 *
 * This module is browser compatible.
 *
 * @example Where does this alias stand?
 * ```ts
 * import { aliasPayloadHash, evaluateAlias, signAlias } from "@betanet/htx/overlay";
 * import { ed25519PublicKey } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const record = signAlias({ pk: ed25519PublicKey(key), seq: 1n, exp: 1_900_000_000n }, key);
 * const payloadHash = aliasPayloadHash(record);
 * const verdict = evaluateAlias(undefined, record, {
 *   now: 1_800_000_000,
 *   evidence: [
 *     { chain: "handshake", payloadHash, confirmations: 12, quietSeconds: 3_600 },
 *     { chain: "filecoin", payloadHash, finalized: false },
 *   ],
 * });
 * assertEquals(verdict.ok || verdict.reason, "not-final"); // one chain of two
 * ```
 *
 * @module
 */

export * from "./bootstrap.ts";
export * from "./cbor.ts";
export * from "./certificate.ts";
export * from "./governance.ts";
export * from "./identity.ts";
export * from "./naming.ts";
export * from "./paths.ts";
export * from "./payments.ts";
export * from "./pow.ts";
export * from "./privacy.ts";
export * from "./transition.ts";
export * from "./transports.ts";
export * from "./trust.ts";
export * from "./vrf.ts";
export * from "./weights.ts";
export {
  type Bytes,
  CloseCode,
  type CloseCodeName,
  HtxError,
  type HtxErrorCode,
  type HtxErrorOptions,
} from "../core/mod.ts";

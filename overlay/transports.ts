/**
 * The names of the transports, and which of them two peers use.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { HtxError } from "./_core.ts";

/** HTX over TCP. */
export const TRANSPORT_HTX = "/betanet/htx/1.1.0";
/** HTX over QUIC. */
export const TRANSPORT_HTXQUIC = "/betanet/htxquic/1.1.0";
/** WebRTC; optional. */
export const TRANSPORT_WEBRTC = "/betanet/webrtc/1.0.0";
/** HTX 1.0 over TCP; legacy. */
export const TRANSPORT_HTX_LEGACY = "/betanet/htx/1.0.0";

/** A transport id that the rules name. */
export type TransportId =
  | typeof TRANSPORT_HTX
  | typeof TRANSPORT_HTXQUIC
  | typeof TRANSPORT_WEBRTC
  | typeof TRANSPORT_HTX_LEGACY;

/** All of them, in the order in which they are tried where nothing else is said. */
export const TRANSPORTS: readonly TransportId[] = [
  TRANSPORT_HTXQUIC,
  TRANSPORT_HTX,
  TRANSPORT_WEBRTC,
  TRANSPORT_HTX_LEGACY,
];

/**
 * "Negotiation picks the first of the local preference that the peer also offers; none is an error." Ids are compared
 * byte for byte; what the peer offers besides, and in which order, does not matter.
 *
 * @throws {HtxError} `REFUSED`, field `transports`, when the two have nothing in common
 *
 * @example
 * ```ts
 * import { negotiateTransport, TRANSPORT_HTX, TRANSPORT_HTXQUIC } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(negotiateTransport([TRANSPORT_HTXQUIC, TRANSPORT_HTX], [TRANSPORT_HTX]), TRANSPORT_HTX);
 * ```
 */
export function negotiateTransport<Id extends string>(local: readonly Id[], peer: Iterable<string>): Id {
  const offered = new Set(peer);
  const chosen = local.find((id) => offered.has(id));
  if (chosen !== undefined) return chosen;
  throw new HtxError("REFUSED", "Cannot negotiate transport: the peer offers none of the local preference", {
    field: "transports",
  });
}

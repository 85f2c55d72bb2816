/**
 * Handshake patterns as data: one table of tokens each, walked by {@linkcode HandshakeState}.
 * This module is browser compatible.
 *
 * @module
 */

/**
 * What one step of a handshake message is (Noise §5.3, §7.2; the KEM tokens `e1` and `ekem1` of the Noise HFS
 * extension §2). In a DH token the initiator's key is named first.
 */
export type NoiseToken = "e" | "s" | "ee" | "es" | "se" | "ss" | "e1" | "ekem1";

/** A handshake pattern together with the names of its functions. */
export interface NoisePattern {
  /** The full protocol name, which is hashed into the transcript (Noise §8). */
  readonly protocol: string;
  /** Whether the initiator's static key is known to the responder beforehand (`-> s` before the dots). */
  readonly initiatorKnown: boolean;
  /** Whether the responder's static key is known to the initiator beforehand (`<- s` before the dots). */
  readonly responderKnown: boolean;
  /** The messages in turn, the initiator's first. */
  readonly messages: readonly (readonly NoiseToken[])[];
}

/**
 * The classic handshake (Noise §7.5):
 *
 *     XK:
 *       <- s
 *       ...
 *       -> e, es
 *       <- e, ee
 *       -> s, se
 */
export const XK: NoisePattern = /* @__PURE__ */ Object.freeze({
  protocol: "Noise_XK_25519_ChaChaPoly_SHA256",
  initiatorKnown: false,
  responderKnown: true,
  messages: [["e", "es"], ["e", "ee"], ["s", "se"]] as const,
});

/**
 * The hybrid handshake: XK with hybrid forward secrecy (Noise HFS §4), the KEM being ML-KEM-768 (FIPS 203):
 *
 *     XKhfs:
 *       <- s
 *       ...
 *       -> e, es, e1
 *       <- e, ee, ekem1
 *       -> s, se
 */
export const XKhfs: NoisePattern = /* @__PURE__ */ Object.freeze({
  protocol: "Noise_XKhfs_25519+MLKEM768_ChaChaPoly_SHA256",
  initiatorKnown: false,
  responderKnown: true,
  messages: [["e", "es", "e1"], ["e", "ee", "ekem1"], ["s", "se"]] as const,
});

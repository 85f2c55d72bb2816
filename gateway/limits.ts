/**
 * The bounds of a gateway, each with its default.
 *
 * @module
 */

/** Bounds of a gateway; 0 turns off a time and lifts the bounds of bodies. */
export interface GatewayLimits {
  /** Bytes of a request's header fields; past it 431. @default {32768} */
  headerBytes?: number | undefined;
  /** Bytes of a request's body; past it 413. 0 is no bound: bodies are never held. @default {0} */
  bodyBytes?: number | undefined;
  /**
   * Requests on their way upstream at once, open WebSockets and their handshakes among them; past it 503 with
   * `retry-after`.
   *
   * @default {1024}
   */
  concurrentRequests?: number | undefined;
  /** Milliseconds for the upstream to begin its answer, counted from the last of the request's body; then 504. @default {30000} */
  responseTimeoutMs?: number | undefined;
  /** Milliseconds that a request and its answer may take together; then 504, or the answer is cut. @default {0} */
  requestTimeoutMs?: number | undefined;
  /** Milliseconds that a begun answer may stand still; then it is cut. @default {120000} */
  idleTimeoutMs?: number | undefined;
}

/** The limits where nothing is said. */
export const DEFAULT_GATEWAY_LIMITS: Readonly<Record<keyof GatewayLimits, number>> = /* @__PURE__ */ Object
  .freeze({
    headerBytes: 32_768,
    bodyBytes: 0,
    concurrentRequests: 1024,
    responseTimeoutMs: 30_000,
    requestTimeoutMs: 0,
    idleTimeoutMs: 120_000,
  });

/** Fills in the defaults. @throws {RangeError} when a bound is not a non-negative integer */
export function resolveGatewayLimits(
  limits: GatewayLimits = {},
): Readonly<Record<keyof GatewayLimits, number>> {
  const out = { ...DEFAULT_GATEWAY_LIMITS };
  for (const key of Object.keys(out) as (keyof GatewayLimits)[]) {
    const value = limits[key];
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`Cannot use limit ${key}: ${value} is not a non-negative integer`);
    }
    out[key] = value;
  }
  return out;
}

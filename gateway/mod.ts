/**
 * HTTP in, HTX out: a gateway that takes requests at an HTTP front, lets in whoever has a ticket, and carries each
 * request on a stream of a sealed session to an upstream.
 *
 * @example A gateway over an application in the same process
 * ```ts
 * import { createGateway, denoFront, localUpstream } from "@betanet/htx/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * await using upstream = localUpstream(() => new Response("hello"));
 * await using gateway = createGateway({ upstream });
 * await using front = denoFront(gateway.handler, { port: 0 });
 * assertEquals(await (await fetch(`http://127.0.0.1:${front.addr.port}/`)).text(), "hello");
 * ```
 *
 * @module
 */

export * from "./admin.ts";
export * from "./admission.ts";
export * from "./config.ts";
export { decoyAlone, fixedDecoy, type FixedDecoyOptions, staticDecoy } from "./decoy.ts";
export * from "./forwarded.ts";
export * from "./front.ts";
export {
  createGateway,
  Gateway,
  type GatewayOptions,
  type GatewayStats,
  type UpgradeContext,
} from "./gateway.ts";
export * from "./limits.ts";
export * from "./local.ts";
export * from "./metrics.ts";
export * from "./node_front.ts";
export { prometheusText } from "./prometheus.ts";
export * from "./run.ts";
export { readOrMakeKeyPair, readSecret, readSecretBytes, type SecretOptions } from "./secrets.ts";
export { isTracing, withTracing } from "./tracing.ts";
export type { SessionOptions, UpstreamCounters, UpstreamEndpoint, UpstreamStatus } from "./upstreams.ts";

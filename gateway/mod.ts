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
export type { TicketAdmissionOptions } from "./admission.ts";
export * from "./config.ts";
export { decoyAlone, fixedDecoy, type FixedDecoyOptions, staticDecoy } from "./decoy.ts";
export type { ClientFacts, ForwardingOptions } from "./forwarded.ts";
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
export { type HandshakeInfo, HtxConnection, HtxStream } from "../core/mod.ts";
export { KeyPair } from "../noise/mod.ts";
export type { PathState } from "../overlay/paths.ts";
export { TicketPolicy, TicketVerifier } from "../tickets/mod.ts";
export {
  covertEndpoint,
  type CovertEndpointOptions,
  passWebSockets,
  type UpgradeHandler,
} from "./upgrade.ts";
export type {
  AdmissionOptions,
  TicketCarrier,
  TicketRefusal,
  TicketVerifierOptions,
} from "../tickets/mod.ts";
export { HtxServer } from "../transport/mod.ts";
export type {
  ConnectOptions,
  Dialer,
  FetchApp,
  HttpHandler,
  HttpRequestHead,
  ServeStreamsOptions,
  StreamHandler,
} from "../transport/mod.ts";

// What the types above speak of.
export {
  type Aead,
  type ByteIo,
  type Bytes,
  type Clock,
  CloseCode,
  type CloseCodeName,
  type CloseInfo,
  type ConnectionOptions,
  type ConnectionStats,
  type CryptoBackend,
  type DhPrivateKey,
  type Duplex,
  type DuplexAddr,
  type Encapsulation,
  HtxError,
  type HtxErrorCode,
  type KemPrivateKey,
  type RekeyLimits,
  type SessionLimits,
  type SessionStats,
  SessionStream,
  type StreamWriteOptions,
  type UniformRange,
} from "../core/mod.ts";
export { type HandshakeOptions, ReplayGuard, type RespondOptions } from "../noise/mod.ts";
export type {
  FoundTicket,
  RateLimiter,
  ReplayAnswer,
  ReplayStore,
  TicketClaim,
  TicketKey,
  TicketResult,
  TicketStep,
  VerifyTicketOptions,
} from "../tickets/mod.ts";
export {
  type AcceptOptions,
  type ConnectDuplexOptions,
  type ControlStreamClientContext,
  type ControlStreamHook,
  type ControlStreamReceiver,
  type ControlStreamServerContext,
  type DuplexListener,
  type HttpConnectionInfo,
  type HttpField,
  type HttpRequestInfo,
  type RelayDuplexOptions,
  type RelayWebSocketOptions,
  type StreamInfo,
  StreamWebSocket,
  type StreamWebSocketEventMap,
  type StreamWebSocketHandler,
  type UpgradeWebSocketOptions,
  type WebSocketDecoderOptions,
  type WebSocketUpgrade,
} from "../transport/mod.ts";

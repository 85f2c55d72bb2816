/**
 * How bytes travel, and what is served on them: carriers, `connect()` and `serve()`, HTTP over streams, upstreams.
 *
 * @example An application behind the tunnel, and a client of it
 * ```ts
 * import { connect, serve } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve((request) => new Response(`you asked for ${new URL(request.url).pathname}`));
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * assertEquals(await (await client.fetch("/tea")).text(), "you asked for /tea");
 * ```
 *
 * @module
 */

export {
  type ClientFetchOptions,
  type ClientStats,
  connect,
  connectDuplex,
  type ConnectDuplexOptions,
  type ConnectOptions,
  type Dialer,
  HtxClient,
  REDIAL_MS,
  roundtrip,
  type RoundtripOptions,
} from "./client.ts";
export type {
  ControlStreamClientContext,
  ControlStreamHook,
  ControlStreamReceiver,
  ControlStreamServerContext,
} from "./control.ts";
export {
  conformance,
  type ConformanceCarrier,
  type ConformanceCase,
  type ConformanceOptions,
} from "./conformance.ts";
export { ioDuplex, type IoDuplexOptions } from "./duplex.ts";
export {
  type CoverDialer,
  CoverLimiter,
  dialWithFallback,
  type FallbackAttempt,
  fallbackDialer,
  type FallbackOptions,
  type FallbackPlan,
  type FallbackPlanOptions,
  type FallbackResult,
  planFallback,
  type PlannedCover,
} from "./fallback.ts";
export {
  forward,
  type Forwarder,
  type ForwardOptions,
  type ForwardTarget,
  forwardUpstream,
  type ForwardUpstreamOptions,
} from "./forward.ts";
export * from "./http/mod.ts";
export type { DuplexListener } from "./listener.ts";
export { type MemoryDuplexOptions, memoryDuplexPair } from "./memory.ts";
export { dialQuic, type DialQuicOptions, listenQuic, type ListenQuicOptions, quicSupported } from "./quic.ts";
export { relayDuplex, type RelayDuplexOptions } from "./relay.ts";
export { type FetchApp, httpStreams, serve, type ServeOptions } from "./serve.ts";
export {
  acceptDuplex,
  type AcceptOptions,
  HtxServer,
  serveStreams,
  type ServeStreamsOptions,
  type StreamHandler,
  type StreamInfo,
} from "./server.ts";
export {
  certificateFingerprint,
  dialTls,
  type DialTlsOptions,
  listenTls,
  type ListenTlsOptions,
} from "./tls.ts";
export { connDuplex, dialTcp, type DialTcpOptions, listenTcp, type TcpAddress } from "./tcp.ts";
export * from "./upstream/mod.ts";
export {
  dialWebSocket,
  type DialWebSocketOptions,
  MAX_WEBSOCKET_MESSAGE_LENGTH,
  type UpgradeInfo,
  webSocketDuplex,
  type WebSocketDuplexOptions,
  type WebSocketLike,
  WebSocketListener,
  type WebSocketListenerOptions,
} from "./websocket.ts";
export {
  type Aead,
  type ByteIo,
  type Clock,
  CloseCode,
  type CloseInfo,
  type ConnectionOptions,
  type ConnectionStats,
  type CryptoBackend,
  type DhPrivateKey,
  type Duplex,
  type Encapsulation,
  type HandshakeInfo,
  HtxConnection,
  HtxStream,
  type KemPrivateKey,
  type RekeyLimits,
  type SessionLimits,
  type SessionStats,
  SessionStream,
  type StreamWriteOptions,
  type UniformRange,
} from "../core/mod.ts";
export { type HandshakeOptions, KeyPair, ReplayGuard, type RespondOptions } from "../noise/mod.ts";

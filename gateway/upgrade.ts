/**
 * What a gateway does with a WebSocket that it let in: hands it on to the application, or finds a session of HTX in it.
 * Both are `onUpgrade` hooks, called behind admission: whoever has no ticket gets the decoy, here as everywhere.
 *
 * @module
 */

import { endDuplex } from "../core/_end_duplex.ts";
import { HtxError } from "../core/mod.ts";
import {
  connectOverStream,
  type Duplex,
  MAX_WEBSOCKET_MESSAGE_LENGTH,
  relayDuplex,
  type RelayDuplexOptions,
  relayWebSocket,
  type RelayWebSocketOptions,
  toResponse,
  webSocketDuplex,
} from "../transport/mod.ts";
import { hasControls } from "../core/_controls.ts";
import type { UpgradeContext } from "./gateway.ts";

/** Takes a WebSocket that was let in; `undefined` leaves it to whoever is next. */
export type UpgradeHandler = (
  upgrade: UpgradeContext,
) => Response | undefined | Promise<Response | undefined>;

/** Fields of the application's answer that belong in the handshake's. */
const PASSED: ReadonlySet<string> = /* @__PURE__ */ new Set(["sec-websocket-protocol", "set-cookie"]);

/**
 * Passes WebSockets to the application behind the tunnel, each through one stream (HTX 1.1 §5): a handler that calls
 * `info.upgradeWebSocket()`, or `webSocketProxyUpstream()`. What the application answers otherwise is the answer.
 *
 * @example
 * ```ts ignore
 * import { createGateway, passWebSockets } from "@betanet/htx/gateway";
 *
 * const gateway = createGateway({ upstream, onUpgrade: passWebSockets() });
 * ```
 */
export function passWebSockets(options: RelayWebSocketOptions = {}): UpgradeHandler {
  const { maxMessageBytes, closeTimeoutMs } = options;
  return async (upgrade) => {
    const { info, request, head } = upgrade;
    if (info.upgradeWebSocket === undefined) return undefined;
    const answer = await connectOverStream(await upgrade.open(), head);
    const { tunnel } = answer;
    if (answer.fields.some(([, value]) => hasControls(value))) {
      if (tunnel === undefined) answer.body.cancel();
      else tunnel.reset("CANCELLED", "no upgrade");
      throw new HtxError("MALFORMED", "Cannot carry answer: a field holds a control character");
    }
    if (tunnel === undefined) return withCookie(toResponse(answer), upgrade.setCookie);
    let upgraded: ReturnType<typeof info.upgradeWebSocket>;
    try {
      upgraded = info.upgradeWebSocket(request, { maxMessageBytes, closeTimeoutMs });
    } catch (error) {
      tunnel.reset("CANCELLED", "no upgrade");
      throw error;
    }
    const { socket, response } = upgraded;
    for (const [name, value] of answer.fields) if (PASSED.has(name)) response.headers.append(name, value);
    const release = upgrade.hold(() => tunnel.reset("GOING_AWAY", "the gateway stops"));
    relayWebSocket(socket, tunnel, options).finally(release);
    return withCookie(response, upgrade.setCookie);
  };
}

/** Options of {@linkcode covertEndpoint}. */
export interface CovertEndpointOptions extends RelayDuplexOptions {
  /** The path that holds it, such as `/live`; a query may follow. */
  path: string;
  /**
   * Where the session inside goes: `accept` of an `HtxServer` ends it here; a function that opens a duplex to a server
   * elsewhere has this front relay it, and see ciphertext only.
   */
  session:
    | { accept(duplex: Duplex): Promise<unknown> }
    | { dial(options: { signal: AbortSignal }): Promise<Duplex> };
  /** Takes WebSockets of other paths. @default {they are refused} */
  next?: UpgradeHandler | undefined;
}

/**
 * HTX inside a WebSocket of the gateway's: from outside, a web site with a WebSocket (the covert form). Clients reach it
 * with `dialWebSocket()` and their ticket.
 *
 * @example
 * ```ts ignore
 * import { covertEndpoint, createGateway } from "@betanet/htx/gateway";
 * import { dialTcp } from "@betanet/htx/transport";
 *
 * const session = { dial: () => dialTcp({ hostname: "10.0.0.5", port: 9443 }) };
 * const gateway = createGateway({ upstream, onUpgrade: covertEndpoint({ path: "/live", session }) });
 * ```
 */
export function covertEndpoint(options: CovertEndpointOptions): UpgradeHandler {
  const { path, session, next } = options;
  return async (upgrade) => {
    const { info, request, head, signal } = upgrade;
    if (head.path.split("?", 1)[0] !== path) return await next?.(upgrade);
    if (info.upgradeWebSocket === undefined) return undefined;
    const { remoteAddr } = info; // gone once the request is upgraded
    const far = "dial" in session ? await session.dial({ signal }) : undefined;
    let upgraded: ReturnType<typeof info.upgradeWebSocket>;
    try {
      signal.throwIfAborted(); // given up meanwhile
      upgraded = info.upgradeWebSocket(request, { maxMessageBytes: MAX_WEBSOCKET_MESSAGE_LENGTH });
    } catch (error) {
      if (far !== undefined) endDuplex(far);
      throw error;
    }
    const { socket, response } = upgraded;
    const near = webSocketDuplex(socket, { remoteAddr: { ...remoteAddr, transport: "websocket" } });
    const release = upgrade.hold(() => near.close?.());
    socket.addEventListener("close", release, { once: true });
    if ("accept" in session) session.accept(near).catch(() => near.close?.());
    else relayDuplex(near, far!, options).catch(() => {}); // either end has seen it break
    return withCookie(response, upgrade.setCookie);
  };
}

function withCookie(response: Response, setCookie: string | undefined): Response {
  if (setCookie !== undefined) response.headers.append("set-cookie", setCookie);
  return response;
}

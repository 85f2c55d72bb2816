/**
 * From a configuration to a running gateway: front, admin listener, stores and all.
 *
 * @module
 */

import { getLogger } from "@logtape/logtape";
import { within } from "../core/_deferred.ts";
import { fromHex, HtxError } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import {
  KvReplayStore,
  MemoryRateLimiter,
  MemoryReplayStore,
  RedisTicketStore,
  type ReplayStore,
  type TicketKey,
  TicketPolicy,
} from "../tickets/mod.ts";
import { dialTcp } from "../transport/mod.ts";
import { hostPort, urlOf } from "./_url.ts";
import { adminHandler, type AdminOptions } from "./admin.ts";
import type { TicketAdmissionOptions } from "./admission.ts";
import { type GatewayConfig, needsRestart } from "./config.ts";
import { decoyAlone, fixedDecoy, staticDecoy } from "./decoy.ts";
import { denoFront, type FrontHandler, type FrontOptions, type HttpFront } from "./front.ts";
import { createGateway, type Gateway, type GatewayOptions } from "./gateway.ts";
import { httpEcho, localStreams, type LocalUpstream } from "./local.ts";
import { nodeFront } from "./node_front.ts";
import {
  readOrMakeKeyPair,
  readSecret,
  readSecretBytes,
  resolvePath,
  type SecretOptions,
} from "./secrets.ts";
import { isTracing } from "./tracing.ts";
import { covertEndpoint, passWebSockets, type UpgradeHandler } from "./upgrade.ts";
import type { UpstreamEndpoint } from "./upstreams.ts";

/** Bytes of a ticket's private key and of a gateway key. */
const KEY_LENGTH = 32;
/** What a client gets to see the end of its cut answer, in ms. */
const CUT_MS = 500;

/** Options of {@linkcode runGateway}. */
export interface RunOptions {
  /** Folder that relative paths of the configuration begin at. @default {"."} */
  base?: string | undefined;
  /** Told of what an operator should know. @default {logged as warnings} */
  onWarning?: ((message: string) => void) | undefined;
  /** More for the gateway: hooks that a file cannot hold. */
  gateway?: Pick<GatewayOptions, "onUpgrade" | "intercept"> | undefined;
}

/** A gateway that runs from a configuration. `await using` shuts it down. */
export interface RunningGateway extends AsyncDisposable {
  /** The gateway. */
  readonly gateway: Gateway;
  /** Its front. */
  readonly front: HttpFront;
  /** The admin listener, where there is one. */
  readonly admin: HttpFront | undefined;
  /** Where it is reached. */
  readonly url: string;
  /**
   * Takes tickets, session, limits, decoy and trusted proxies of another configuration over, one after another.
   * Connections and running requests are not touched.
   *
   * @returns the keys whose change takes a restart
   * @throws when something that the configuration names cannot be read; everything stays as it was then
   * @throws {HtxError} `CLOSED` when tickets are asked for and the gateway has ended
   */
  reload(config: GatewayConfig): Promise<string[]>;
  /** Stops accepting, lets requests finish for as long as the configuration says, cuts the rest, ends the sessions. */
  shutdown(): Promise<void>;
  /** Ends everything at once. */
  abort(): Promise<void>;
}

/** The stores of a configuration. Until they are taken, those of the one before are in use, and stay open. */
interface PreparedStores {
  readonly replay: ReplayStore;
  readonly limiter: MemoryRateLimiter;
  /** They are in use from now on; what they replace is closed. */
  take(): Promise<void>;
  /** The configuration was refused; what was opened for it is closed. */
  drop(): Promise<void>;
}

/** What outlives a reload. */
class Stores {
  #replay: ReplayStore | undefined;
  #replayOf = "";
  #limiter: MemoryRateLimiter | undefined;
  #limiterOf = "";
  #closed = false;
  readonly sessionKey: Uint8Array = crypto.getRandomValues(new Uint8Array(KEY_LENGTH));

  async prepare(config: GatewayConfig["tickets"], secrets: SecretOptions): Promise<PreparedStores> {
    this.#requireOpen();
    const { per_minute: perMinute, burst } = config;
    const replayOf = JSON.stringify([config.store, config.kv_path, config.redis_url, config.redis_prefix]);
    const before = this.#replay;
    // A new one would have forgotten what this gateway recorded.
    const replay = before !== undefined && this.#replayOf === replayOf
      ? before
      : await this.#make(config, secrets);
    if (this.#closed) await replay.close?.(); // meanwhile; nobody would close it any more
    this.#requireOpen();
    const limiterOf = `${perMinute} ${burst}`;
    const limiter = this.#limiter !== undefined && this.#limiterOf === limiterOf
      ? this.#limiter
      : new MemoryRateLimiter({ perMinute, burst });
    return {
      replay,
      limiter,
      take: async () => {
        if (this.#closed) return await replay.close?.();
        this.#replay = replay;
        this.#replayOf = replayOf;
        this.#limiter = limiter;
        this.#limiterOf = limiterOf;
        if (replay !== before) await before?.close?.();
        // The one store that keeps buckets too.
        else if (replay instanceof RedisTicketStore) replay.setLimits({ perMinute, burst });
      },
      drop: async () => {
        if (replay !== before) await replay.close?.();
      },
    };
  }

  async #make(config: GatewayConfig["tickets"], secrets: SecretOptions): Promise<ReplayStore> {
    const { per_minute: perMinute, burst } = config;
    switch (config.store) {
      case "memory":
        return new MemoryReplayStore();
      case "kv":
        return await openKv(config, secrets.base);
      case "redis": {
        const reference = config.redis_url;
        const url = /^(?:file|env):/.test(reference) ? await readSecret(reference, secrets) : reference;
        return await RedisTicketStore.connect(url, {
          prefix: config.redis_prefix,
          perMinute,
          burst,
          onError: (error) => log().error("Ticket store: {reason}", { reason: error.message }),
        });
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#replay?.close?.();
    this.#replay = undefined;
  }

  #requireOpen(): void {
    if (this.#closed) throw new HtxError("CLOSED", "Cannot open ticket stores: the gateway has ended");
  }
}

const log = () => getLogger(["htx", "gateway"]);

/**
 * Reads everything that a configuration names (keys, certificates, folders), and keeps nothing of it: what `--check` does.
 *
 * @throws {HtxError} naming what cannot be read
 */
export async function checkConfig(config: GatewayConfig, options: RunOptions = {}): Promise<void> {
  const secrets = secretOptions(options);
  await readTls(config, secrets);
  const { key } = config.identity;
  if (key.startsWith("env:") || (key !== "" && await exists(resolvePath(key.slice(5), secrets.base)))) {
    const { keyPair } = await readOrMakeKeyPair(key, secrets);
    const own = config.upstream.find(({ public_key }) => public_key.toLowerCase() === keyPair.publicKeyHex);
    if (own !== undefined) {
      throw new HtxError("STORE_FAILED", `Cannot use identity.key: upstream ${own.address} has the same key`);
    }
  }
  await ticketKeys(config, secrets);
  await sessionKeys(config, secrets);
  await makeDecoy(config, secrets);
  if (config.tickets.enabled && config.tickets.store === "kv") await kvFile(config.tickets, secrets.base);
  if (/^(?:file|env):/.test(config.tickets.redis_url)) await readSecret(config.tickets.redis_url, secrets);
}

/**
 * Starts a gateway from a configuration.
 *
 * @example
 * ```ts
 * import { parseConfig, runGateway } from "@betanet/htx/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * await using running = await runGateway(parseConfig("[listen]\nport = 0\n")); // an echo upstream in this process
 * const response = await fetch(`${running.url}/echo`, { method: "POST", body: "hello" });
 * assertEquals(await response.text(), "hello");
 * ```
 *
 * @throws {HtxError} when something that the configuration names cannot be used
 * @throws {Deno.errors.AddrInUse} when a port is taken
 */
export async function runGateway(config: GatewayConfig, options: RunOptions = {}): Promise<RunningGateway> {
  const secrets = secretOptions(options);
  const warn = secrets.onWarning!;
  const stores = new Stores();
  const locals: LocalUpstream[] = [];
  const close: (() => unknown)[] = [() => stores.close()];
  const undo = async () => {
    for (const one of close.reverse()) await one();
  };
  try {
    const tls = await readTls(config, secrets);
    const keyPair = await identity(config, secrets);
    const upstream: UpstreamEndpoint[] = config.upstream.map((one) => {
      const named = one.name === "" ? {} : { name: one.name };
      if (one.address === "echo") {
        const local = localStreams(httpEcho(), { name: "echo", ...named });
        locals.push(local);
        close.push(() => local[Symbol.asyncDispose]());
        return local;
      }
      return { ...addressOf(one.address), publicKey: one.public_key, ...named };
    });
    const { sessions } = config;
    const decoy = await makeDecoy(config, secrets);
    const { admission, prepared } = await makeAdmission(config, secrets, stores);
    await prepared?.take();
    const gateway = createGateway({
      onUpgrade: upgradesOf(config),
      ...options.gateway,
      upstream,
      keyPair,
      warm: true,
      limits: limitsOf(config),
      decoy,
      forwarding: forwardingOf(config),
      admission,
      sessions: {
        streamsPerSession: sessions.streams_per_session,
        maxSessions: sessions.max_sessions,
        connectTimeoutMs: sessions.connect_timeout_ms,
        postQuantum: sessions.post_quantum,
        keepalive: sessions.keepalive,
        padding: sessions.padding,
      },
    });
    close.push(() => gateway.close());
    const front = await makeFront(config, gateway.handler, tls);
    close.push(() => front[Symbol.asyncDispose]());
    let admin: HttpFront | undefined;
    if (config.admin.enabled) {
      const { hostname, port } = config.admin;
      const loopbackOnly = /^(?:localhost|127\.|::1$)/.test(hostname);
      const adminOptions: AdminOptions = { loopbackOnly };
      const handler = adminHandler(gateway, adminOptions);
      admin = await listening(
        "admin",
        { hostname, port },
        (where) => denoFront((request) => handler(request), where),
      );
      if (!loopbackOnly) warn(`the admin listener at ${hostname} has no password: keep it on loopback`);
    }
    warnOfTickets(config, warn);
    const ended = async () => {
      front.abort();
      admin?.abort();
      await Promise.all([front.finished, admin?.finished]);
      for (const local of locals) await local[Symbol.asyncDispose]();
      await stores.close();
    };
    let current = config;
    const reload = async (next: GatewayConfig) => {
      const decoy = await makeDecoy(next, secrets);
      const { admission, prepared } = await makeAdmission(next, secrets, stores);
      try {
        gateway.reload({ limits: limitsOf(next), forwarding: forwardingOf(next), decoy, admission });
      } catch (error) {
        await prepared?.drop();
        throw error;
      }
      await prepared?.take();
      if (current.tickets.enabled && !next.tickets.enabled) {
        warn("tickets are no longer asked for: everybody is let in");
      }
      warnOfTickets(next, warn);
      const keys = needsRestart(current, next);
      current = { ...current, ...pick(next) };
      return keys;
    };
    let reloading: Promise<unknown> = Promise.resolve();
    let stopping: Promise<void> | undefined;
    const stop = async () => {
      const graceMs = current.limits.shutdown_ms;
      const deadline = performance.now() + graceMs;
      const frontEnd = front.shutdown();
      await gateway.shutdown({ graceMs });
      // What the gateway is done with, and what the decoy answers, is still on its way to clients that read slowly.
      await within(frontEnd, Math.max(deadline - performance.now(), CUT_MS));
      await ended();
    };
    const running: RunningGateway = {
      gateway,
      front,
      admin,
      url: urlOf(front),
      reload: (next) => {
        // One after another: the last configuration stays, however long one before it took to read.
        const taken = reloading.then(() => reload(next));
        reloading = taken.catch(() => {});
        return taken;
      },
      shutdown: () => stopping ??= stop(),
      abort: async () => {
        const end = ended();
        await gateway.close();
        await end;
      },
      [Symbol.asyncDispose]: () => running.shutdown(),
    };
    return running;
  } catch (error) {
    await undo();
    throw error;
  }
}

/** The decoy of a configuration, alone behind the same front: for comparing the two. */
export async function runDecoyAlone(config: GatewayConfig, options: RunOptions = {}): Promise<HttpFront> {
  const secrets = secretOptions(options);
  const decoy = await makeDecoy(config, secrets);
  const tls = await readTls(config, secrets);
  return await makeFront(config, decoyAlone(decoy, { formTimeoutMs: config.tickets.form_timeout_ms }), tls);
}

function pick(config: GatewayConfig): Partial<GatewayConfig> {
  const { limits, tickets, session, decoy } = config;
  return { limits, tickets, session, decoy };
}

function secretOptions(options: RunOptions): SecretOptions {
  const { base = ".", onWarning = (message: string) => log().warn("{message}", { message }) } = options;
  return { base, onWarning };
}

function makeFront(
  config: GatewayConfig,
  handler: FrontHandler,
  tls: FrontOptions["tls"],
): Promise<HttpFront> {
  const { front, hostname, port } = config.listen;
  return listening("listen", { hostname, port }, (where) => {
    // Until the last, strangers are shown the decoy.
    if (front === "deno") return denoFront(handler, { ...where, tls, whileStopping: handler });
    return nodeFront(handler, {
      ...where,
      tls,
      headersTimeoutMs: config.listen.head_timeout_ms,
      requestTimeoutMs: config.listen.receive_timeout_ms,
      keepAliveTimeoutMs: config.listen.keep_alive_timeout_ms,
      lingerBytes: config.listen.linger_bytes,
      lingerTimeoutMs: config.listen.linger_timeout_ms,
      writeTimeoutMs: config.limits.idle_timeout_ms,
    });
  });
}

interface Where {
  readonly hostname: string;
  readonly port: number;
}

/** Starts a front; what it throws names the place, of which there are two. */
async function listening(
  table: "listen" | "admin",
  where: Where,
  start: (where: Where) => HttpFront | Promise<HttpFront>,
): Promise<HttpFront> {
  const { hostname, port } = where;
  try {
    return await start(where);
  } catch (cause) {
    if (cause instanceof Deno.errors.AddrInUse) {
      const message = `Cannot use ${table}.port: ${hostPort(where)} is taken`;
      throw new Deno.errors.AddrInUse(message, { cause });
    }
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HtxError("UNSUPPORTED", `Cannot use ${table}.hostname ${hostname}, port ${port}: ${why}`, {
      cause,
    });
  }
}

async function identity(config: GatewayConfig, secrets: SecretOptions): Promise<KeyPair> {
  const { key } = config.identity;
  if (key === "") return KeyPair.generate();
  const { keyPair, made } = await readOrMakeKeyPair(key, secrets);
  log().info(made ? "Made the gateway's key {fingerprint}" : "The gateway's key is {fingerprint}", {
    fingerprint: keyPair.fingerprint,
  });
  return keyPair;
}

async function readTls(config: GatewayConfig, secrets: SecretOptions): Promise<FrontOptions["tls"]> {
  const { tls_cert, tls_key } = config.listen;
  if (tls_cert === "") return undefined;
  const [cert, key] = await Promise.all([
    readSecret(`file:${tls_cert}`, { base: secrets.base ?? "." }),
    readSecret(`file:${tls_key}`, secrets),
  ]);
  await requireTls(cert, key, config.listen);
  return { cert: `${cert}\n`, key: `${key}\n` };
}

/**
 * Deno's server does not say which file it means, and Node's starts with anything and fails its clients.
 *
 * @throws {HtxError} naming the file
 */
async function requireTls(cert: string, key: string, names: GatewayConfig["listen"]): Promise<void> {
  const { createPrivateKey, X509Certificate } = await import("node:crypto");
  const { tls_cert, tls_key } = names;
  const fail = (setting: string, why: string, cause?: unknown) =>
    new HtxError("STORE_FAILED", `Cannot use listen.${setting}: ${why}`, { cause });
  let leaf, own;
  try {
    leaf = new X509Certificate(pemBlock(cert, "CERTIFICATE"));
  } catch (cause) {
    throw fail("tls_cert", `${tls_cert} holds no PEM certificate`, cause);
  }
  try {
    own = createPrivateKey(pemBlock(key, "(?:[A-Z]+ )?PRIVATE KEY"));
  } catch (cause) {
    throw fail("tls_key", `${tls_key} holds no PEM private key without a passphrase`, cause);
  }
  if (!leaf.checkPrivateKey(own)) throw fail("tls_key", `${tls_key} is not the key of ${tls_cert}`);
}

/** The first block of a PEM file, which may hold others; empty without one. */
function pemBlock(pem: string, label: string): string {
  return new RegExp(`-----BEGIN (${label})-----[^]*?-----END \\1-----`).exec(pem)?.[0] ?? "";
}

async function openKv(config: GatewayConfig["tickets"], base?: string): Promise<KvReplayStore> {
  const path = await kvFile(config, base);
  try {
    return await KvReplayStore.open(path);
  } catch (error) {
    if (path === undefined || !(error instanceof HtxError) || !(error.cause instanceof Error)) throw error;
    const why = `${config.kv_path}: ${error.cause.message}`;
    throw new HtxError("STORE_FAILED", `Cannot use tickets.kv_path: ${why}`, { cause: error });
  }
}

/**
 * Where the KV file is; `undefined` for the default one.
 *
 * @throws {HtxError} when the folder that it belongs into is not there
 */
async function kvFile({ kv_path }: GatewayConfig["tickets"], base?: string): Promise<string | undefined> {
  if (kv_path === "") return undefined;
  const path = resolvePath(kv_path, base);
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  if (folder !== "" && !await isFolder(folder)) {
    throw new HtxError(
      "STORE_FAILED",
      `Cannot use tickets.kv_path: ${kv_path}: there is no folder ${folder}`,
    );
  }
  return path;
}

/** Whether it is there; what may not be looked at counts as there. */
function isFolder(path: string): Promise<boolean> {
  return Deno.stat(path).then(
    (info) => info.isDirectory,
    (error) => !(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory),
  );
}

function limitsOf({ limits }: GatewayConfig): GatewayOptions["limits"] {
  return {
    headerBytes: limits.header_bytes,
    bodyBytes: limits.body_bytes,
    concurrentRequests: limits.concurrent_requests,
    responseTimeoutMs: limits.response_timeout_ms,
    requestTimeoutMs: limits.request_timeout_ms,
    idleTimeoutMs: limits.idle_timeout_ms,
  };
}

function forwardingOf({ listen }: GatewayConfig): GatewayOptions["forwarding"] {
  return { trustedProxies: listen.trusted_proxies, proxyHeader: listen.proxy_header };
}

async function makeDecoy({ decoy }: GatewayConfig, secrets: SecretOptions): Promise<FrontHandler> {
  if (decoy.kind === "fixed") {
    const { status, body, content_type } = decoy;
    return fixedDecoy({ status, body, headers: content_type === "" ? {} : { "content-type": content_type } });
  }
  const root = resolvePath(decoy.root, secrets.base);
  const info = await Deno.stat(root).catch(() => undefined);
  if (info === undefined || !info.isDirectory) {
    throw new HtxError("STORE_FAILED", `Cannot use decoy.root: ${decoy.root} is no folder that can be read`);
  }
  return staticDecoy(await Deno.realPath(root));
}

async function ticketKeys({ tickets }: GatewayConfig, secrets: SecretOptions): Promise<TicketKey[]> {
  const keys: TicketKey[] = [];
  for (const { id, private_key } of tickets.keys) {
    keys.push({ keyId: fromHex(id), privateKey: await readSecretBytes(private_key, KEY_LENGTH, secrets) });
  }
  return keys;
}

async function sessionKeys({ session }: GatewayConfig, secrets: SecretOptions): Promise<Uint8Array[]> {
  const keys: Uint8Array[] = [];
  for (const reference of session.keys) keys.push(await readSecretBytes(reference, KEY_LENGTH, secrets));
  return keys;
}

async function makeAdmission(
  config: GatewayConfig,
  secrets: SecretOptions,
  stores: Stores,
): Promise<{ admission?: TicketAdmissionOptions; prepared?: PreparedStores }> {
  const { tickets, session } = config;
  if (!tickets.enabled) return {};
  const keys = await ticketKeys(config, secrets);
  const cookieKeys = await sessionKeys(config, secrets);
  if (cookieKeys.length === 0) cookieKeys.push(stores.sessionKey);
  const policy = TicketPolicy.parse(tickets.policy);
  const prepared = await stores.prepare(tickets, secrets);
  const admission: TicketAdmissionOptions = {
    policy,
    formTimeoutMs: tickets.form_timeout_ms,
    delayRefusals: tickets.equalize === "work",
    verifier: {
      keys,
      replay: prepared.replay,
      limiter: prepared.limiter,
      failOpenRateLimits: tickets.fail_open_rate_limits,
      equalize: tickets.equalize,
      onStoreError: (error) => {
        log().error("Ticket store failed: {reason}", {
          reason: error instanceof Error ? error.message : String(error),
        });
      },
    },
    session: {
      keys: cookieKeys,
      name: session.name,
      seconds: session.seconds,
      sliding: session.sliding,
      maxSeconds: session.max_seconds,
      context: session.context,
    },
  };
  return { admission, prepared };
}

function warnOfTickets(config: GatewayConfig, warn: (message: string) => void): void {
  const { tickets, session, listen } = config;
  if (!tickets.enabled) return;
  if (listen.tls_cert === "" && listen.trusted_proxies.length === 0) {
    warn(
      "tickets are asked for without TLS: whoever sees one on its way can spend it first, and the session cookie is " +
        "plain (browsers refuse __Host- names here); set listen.tls_cert, or name the proxy in listen.trusted_proxies",
    );
  }
  if (session.keys.length === 0) {
    warn("session.keys is empty: session cookies end with this process, and are not shared between gateways");
  }
  if (isTracing() && TicketPolicy.parse(tickets.policy).carriers.query > 0) {
    warn(
      "tracing is on and tickets may travel in queries: the runtime's own server span holds the whole URL; give query " +
        "weight 0 in tickets.policy",
    );
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** The two parts of `host:port`. */
function addressOf(address: string): { hostname: string; port: number } {
  const colon = address.lastIndexOf(":");
  return {
    hostname: address.slice(0, colon).replace(/^\[(.*)\]$/, "$1"),
    port: Number(address.slice(colon + 1)),
  };
}

/** What is done with WebSockets; without a word about them they are refused. */
function upgradesOf({ websocket }: GatewayConfig): UpgradeHandler | undefined {
  const next = websocket.pass ? passWebSockets() : undefined;
  if (websocket.covert_path === "") return next;
  const far = addressOf(websocket.covert_upstream);
  return covertEndpoint({ path: websocket.covert_path, session: { dial: () => dialTcp(far) }, next });
}

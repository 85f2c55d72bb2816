/**
 * `gateway.toml`: what a gateway is told in a file. Every key has a default and is checked; a key that nobody knows
 * is an error. Messages name the file's line, the key, and what was expected.
 *
 * @module
 */

import { parse as parseToml } from "@std/toml/parse";
import { stringify as stringifyToml } from "@std/toml/stringify";
import * as v from "valibot";
import { publicKeyFromHex } from "../noise/mod.ts";
import { takeFromCookies, TicketPolicy } from "../tickets/mod.ts";
import { ForwardingPolicy } from "./forwarded.ts";
import { DEFAULT_GATEWAY_LIMITS } from "./limits.ts";

/** Where and how the gateway listens. */
export interface ListenConfig {
  /** Which HTTP server stands in front. @default {"deno"} */
  readonly front: "deno" | "node";
  /** Address. @default {"127.0.0.1"} */
  readonly hostname: string;
  /** Port; 0 lets the system choose. @default {8080} */
  readonly port: number;
  /** File with the certificate chain, PEM; with `tls_key` the front speaks TLS and HTTP/2. @default {""} */
  readonly tls_cert: string;
  /** File with the private key, PEM. @default {""} */
  readonly tls_key: string;
  /** Proxies whose forwarding fields are believed: addresses and CIDR blocks. @default {[]} */
  readonly trusted_proxies: readonly string[];
  /** Which fields those proxies write. @default {"x-forwarded"} */
  readonly proxy_header: "x-forwarded" | "forwarded";
  /** Node front: milliseconds for a request's head. @default {10000} */
  readonly head_timeout_ms: number;
  /** Node front: milliseconds for a whole request to arrive; 0 for no bound. @default {0} */
  readonly receive_timeout_ms: number;
  /** Node front: milliseconds that a connection may idle between requests. @default {15000} */
  readonly keep_alive_timeout_ms: number;
  /** Node front: bytes that are read, and dropped, of a request that was answered before its end. @default {262144} */
  readonly linger_bytes: number;
  /** Node front: milliseconds after the answer for the rest of such a request. @default {5000} */
  readonly linger_timeout_ms: number;
}

/** One upstream. */
export interface UpstreamConfig {
  /** `host:port`, or `echo` for one in this process. */
  readonly address: string;
  /** Its static public key, 64 hexadecimal digits; not for `echo`. @default {""} */
  readonly public_key: string;
  /** Name for logs and metrics. @default {the address} */
  readonly name: string;
}

/** One ticket key. */
export interface TicketKeyConfig {
  /** Its id, 16 hexadecimal digits. */
  readonly id: string;
  /** Where its private half is: `file:PATH` or `env:NAME`, 64 hexadecimal digits there. */
  readonly private_key: string;
}

/** A gateway's configuration with every default filled in: the tables of `gateway.toml`. */
export interface GatewayConfig {
  /** Where and how it listens. */
  readonly listen: ListenConfig;
  /** Who it is to its upstreams. */
  readonly identity: {
    /** `file:PATH` (made with mode 0600 where it is not there yet) or `env:NAME`; empty for a fresh key each time. @default {""} */
    readonly key: string;
  };
  /** Up to three, of which the one with least loss, then the nearest, is used. @default {[{ address: "echo" }]} */
  readonly upstream: readonly UpstreamConfig[];
  /** Sessions to upstreams. */
  readonly sessions: {
    /** Streams per session at once. @default {256} */
    readonly streams_per_session: number;
    /** Sessions to each upstream at most. @default {4} */
    readonly max_sessions: number;
    /** Milliseconds to connect and shake hands. @default {5000} */
    readonly connect_timeout_ms: number;
    /** Whether the hybrid handshake is made. @default {"require"} */
    readonly post_quantum: "require" | "off";
    /** Sends keepalives at random times. @default {false} */
    readonly keepalive: boolean;
    /** Sends padding while idle. @default {false} */
    readonly padding: boolean;
  };
  /** Bounds of requests. */
  readonly limits: {
    /** Bytes of header fields; past it 431. @default {32768} */
    readonly header_bytes: number;
    /** Bytes of a body; past it 413; 0 for no bound. @default {0} */
    readonly body_bytes: number;
    /** Requests at once; past it 503. @default {1024} */
    readonly concurrent_requests: number;
    /** Milliseconds for the upstream to begin its answer; then 504. @default {30000} */
    readonly response_timeout_ms: number;
    /** Milliseconds for request and answer together; 0 for no bound. @default {0} */
    readonly request_timeout_ms: number;
    /** Milliseconds that an answer may stand still. @default {120000} */
    readonly idle_timeout_ms: number;
    /** Milliseconds that running requests get when the gateway is stopped. @default {10000} */
    readonly shutdown_ms: number;
  };
  /** WebSockets of those who were let in; the front `node` bounds what they may take, Deno's server does not. */
  readonly websocket: {
    /** Passes them to the application behind the tunnel. @default {false} */
    readonly pass: boolean;
    /** The path at which HTX travels inside a WebSocket, such as `/live`; empty for none. @default {""} */
    readonly covert_path: string;
    /** `host:port` of the HTX server that the session inside is relayed to; this gateway sees ciphertext only. @default {""} */
    readonly covert_upstream: string;
  };
  /** Access tickets. */
  readonly tickets: {
    /** Whether a ticket is asked for. @default {false} */
    readonly enabled: boolean;
    /** The `BN-Ticket` policy: carriers and the cookie's name. @default {"v1; carriers=cookie:0.5,query:0.3,body:0.2; len=24..64; cookie=__Host-bn1"} */
    readonly policy: string;
    /** The live keys. @default {[]} */
    readonly keys: readonly TicketKeyConfig[];
    /** Where spent tickets are remembered. @default {"memory"} */
    readonly store: "memory" | "kv" | "redis";
    /** File of the Deno KV database; empty for the default one. @default {""} */
    readonly kv_path: string;
    /** `redis://…`, `file:PATH` or `env:NAME`. @default {""} */
    readonly redis_url: string;
    /** What keys in Redis begin with. @default {"{htx-tickets}"} */
    readonly redis_prefix: string;
    /** Tickets that one network may show in a minute. @default {20} */
    readonly per_minute: number;
    /** Tickets that it may show at once. @default {40} */
    readonly burst: number;
    /** Looks at tickets all the same when the rate limiter fails. @default {false} */
    readonly fail_open_rate_limits: boolean;
    /** How refusals come to take equally long: `"work"` is equal work and a random delay over it. @default {"work"} */
    readonly equalize: "work" | "delay" | "off";
    /** Milliseconds that a form which may hold a ticket has to arrive in. @default {10000} */
    readonly form_timeout_ms: number;
  };
  /** The cookie that a ticket is exchanged for. */
  readonly session: {
    /** Gateway keys, `file:PATH` or `env:NAME`: the first signs, all verify. @default {a fresh one each time} */
    readonly keys: readonly string[];
    /** Name, without prefix. @default {"sid"} */
    readonly name: string;
    /** Seconds that it lasts. @default {900} */
    readonly seconds: number;
    /** Whether use prolongs it. @default {false} */
    readonly sliding: boolean;
    /** Seconds after which even a prolonged one ends. @default {43200} */
    readonly max_seconds: number;
    /** Binds cookies to a site, where gateways of several sites have one key. @default {""} */
    readonly context: string;
  };
  /** What strangers see. */
  readonly decoy: {
    /** Files of a folder, or one answer for all. @default {"fixed"} */
    readonly kind: "static" | "fixed";
    /** The folder. @default {""} */
    readonly root: string;
    /** Status of the fixed answer. @default {404} */
    readonly status: number;
    /** Its body. @default {"404 Not Found\n"} */
    readonly body: string;
    /** Its content type. @default {"text/plain; charset=utf-8"} */
    readonly content_type: string;
  };
  /** The listener for operators. */
  readonly admin: {
    /** Whether it listens. @default {false} */
    readonly enabled: boolean;
    /** Address. @default {"127.0.0.1"} */
    readonly hostname: string;
    /** Port. @default {9901} */
    readonly port: number;
  };
  /** Logs. */
  readonly log: {
    /** The least level shown. @default {"info"} */
    readonly level: "debug" | "info" | "warning" | "error";
    /** How lines look. @default {"text"} */
    readonly format: "text" | "json";
  };
}

/** Something wrong in a configuration file. */
export interface ConfigProblem {
  /** The line, counted from 1; `undefined` where there is none to name. */
  readonly line: number | undefined;
  /** The key, dotted; empty for the file as a whole. */
  readonly key: string;
  /** What is wrong, and what was expected. */
  readonly message: string;
}

/** A configuration that does not hold. The message has a line for each problem. */
export class ConfigError extends Error {
  /** `ConfigError`. */
  override readonly name: string = "ConfigError";
  /** What is wrong. */
  readonly problems: readonly ConfigProblem[];

  /** Makes an error of problems in the file `name`. */
  constructor(name: string, problems: readonly ConfigProblem[]) {
    super(
      problems.map(({ line, key, message }) =>
        `${name}${line === undefined ? "" : `:${line}`}: ${key === "" ? "" : `${key}: `}${message}`
      ).join("\n"),
    );
    this.problems = problems;
  }
}

const whole = (min: number, max = Number.MAX_SAFE_INTEGER) => {
  const expected = max === Number.MAX_SAFE_INTEGER
    ? `expected a whole number of ${min} or more`
    : `expected a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(min, expected),
    v.maxValue(max, expected),
  );
};
const milliseconds = /* @__PURE__ */ whole(0, 2 ** 31 - 1);
const text = /* @__PURE__ */ v.string("expected text in quotes");
const flag = /* @__PURE__ */ v.boolean("expected true or false");
const oneOf = <const T extends readonly [string, ...string[]]>(...options: T) =>
  v.picklist(options, `expected ${options.map((one) => `"${one}"`).join(" or ")}`);
const host = /* @__PURE__ */ v.pipe(
  text,
  /* @__PURE__ */ v.regex(/^[0-9A-Za-z.:_-]{1,255}$/, "expected a host name or IP address, without port"),
);
const port = /* @__PURE__ */ whole(0, 65_535);
const SECRET = /^(?:file:.+|env:[A-Za-z_][A-Za-z0-9_]*)$/;
const secret = /* @__PURE__ */ v.pipe(
  text,
  /* @__PURE__ */ v.regex(SECRET, "expected file:PATH or env:NAME, since secrets do not stand in this file"),
);
const REDIS_URL = /^(?:rediss?:\/\/.+|file:.+|env:[A-Za-z_][A-Za-z0-9_]*)$/;
const optionalSecret = /* @__PURE__ */ v.union(
  [/* @__PURE__ */ v.literal(""), secret],
  "expected file:PATH or env:NAME, since secrets do not stand in this file",
);
const hex = (bytes: number, what: string) =>
  v.pipe(
    text,
    v.regex(new RegExp(`^[0-9a-fA-F]{${2 * bytes}}$`), `expected ${what}: ${2 * bytes} hexadecimal digits`),
  );
const proxy = /* @__PURE__ */ v.pipe(
  text,
  /* @__PURE__ */ v.check((one) => {
    try {
      new ForwardingPolicy({ trustedProxies: [one] });
      return true;
    } catch {
      return false;
    }
  }, "expected an IP address or a CIDR block such as 10.0.0.0/8"),
);
const policy = /* @__PURE__ */ v.pipe(
  text,
  /* @__PURE__ */ v.check((one) => {
    try {
      TicketPolicy.parse(one);
      return true;
    } catch {
      return false;
    }
  }, 'expected a BN-Ticket policy such as "v1; carriers=cookie:0.5,query:0.3,body:0.2; len=24..64"'),
);
const DEFAULT_SESSION_NAME = "sid";
const table = v.strictObject;
const ADDRESS = /^(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):[0-9]{1,5}$/;

/** Made on first use: importing this module does nothing. */
function makeSchema() {
  const limits = DEFAULT_GATEWAY_LIMITS;
  return v.strictObject({
    listen: table({
      front: v.optional(oneOf("deno", "node"), "deno"),
      hostname: v.optional(host, "127.0.0.1"),
      port: v.optional(port, 8080),
      tls_cert: v.optional(text, ""),
      tls_key: v.optional(text, ""),
      trusted_proxies: v.optional(v.array(proxy, "expected a list"), []),
      proxy_header: v.optional(oneOf("x-forwarded", "forwarded"), "x-forwarded"),
      head_timeout_ms: v.optional(milliseconds, 10_000),
      receive_timeout_ms: v.optional(milliseconds, 0),
      keep_alive_timeout_ms: v.optional(milliseconds, 15_000),
      linger_bytes: v.optional(whole(0), 262_144),
      linger_timeout_ms: v.optional(milliseconds, 5000),
    }),
    identity: table({ key: v.optional(optionalSecret, "") }),
    upstream: v.optional(
      v.pipe(
        v.array(
          v.strictObject({
            address: v.pipe(
              v.string('expected "host:port" or "echo"'),
              v.regex(
                /^(?:echo|(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):[0-9]{1,5})$/,
                'expected "host:port" or "echo"',
              ),
              v.check(
                (one) => one === "echo" || isPort(one),
                'expected "host:port" with a port from 1 to 65535',
              ),
            ),
            public_key: v.optional(
              v.union(
                [v.literal(""), hex(32, "the upstream's public key")],
                `expected the upstream's public key: 64 hexadecimal digits`,
              ),
              "",
            ),
            name: v.optional(text, ""),
          }),
          "expected [[upstream]] tables",
        ),
        v.minLength(1, "expected one upstream at least"),
        v.maxLength(3, "expected three upstreams at most"),
      ),
      [{ address: "echo", public_key: "", name: "" }],
    ),
    sessions: table({
      streams_per_session: v.optional(whole(1, 2 ** 20), 256),
      max_sessions: v.optional(whole(1, 1024), 4),
      connect_timeout_ms: v.optional(whole(1, 2 ** 31 - 1), 5_000),
      post_quantum: v.optional(oneOf("require", "off"), "require"),
      keepalive: v.optional(flag, false),
      padding: v.optional(flag, false),
    }),
    limits: table({
      header_bytes: v.optional(whole(256, 65_536), limits.headerBytes),
      body_bytes: v.optional(whole(0), limits.bodyBytes),
      concurrent_requests: v.optional(whole(1), limits.concurrentRequests),
      response_timeout_ms: v.optional(milliseconds, limits.responseTimeoutMs),
      request_timeout_ms: v.optional(milliseconds, limits.requestTimeoutMs),
      idle_timeout_ms: v.optional(milliseconds, limits.idleTimeoutMs),
      shutdown_ms: v.optional(milliseconds, 10_000),
    }),
    tickets: table({
      enabled: v.optional(flag, false),
      policy: v.optional(policy, "v1; carriers=cookie:0.5,query:0.3,body:0.2; len=24..64; cookie=__Host-bn1"),
      keys: v.optional(
        v.array(
          v.strictObject({ id: hex(8, "a key id"), private_key: secret }),
          "expected [[tickets.keys]] tables",
        ),
        [],
      ),
      store: v.optional(oneOf("memory", "kv", "redis"), "memory"),
      kv_path: v.optional(text, ""),
      redis_url: v.optional(
        v.union(
          [
            v.literal(""),
            v.pipe(text, v.regex(REDIS_URL, "expected redis://host:port, file:PATH or env:NAME")),
          ],
          "expected redis://host:port, file:PATH or env:NAME",
        ),
        "",
      ),
      redis_prefix: v.optional(text, "{htx-tickets}"),
      per_minute: v.optional(whole(1), 20),
      burst: v.optional(whole(1), 40),
      fail_open_rate_limits: v.optional(flag, false),
      equalize: v.optional(oneOf("work", "delay", "off"), "work"),
      form_timeout_ms: v.optional(whole(1, 2 ** 31 - 1), 10_000),
    }),
    session: table({
      keys: v.optional(v.array(secret, "expected a list"), []),
      name: v.optional(
        v.pipe(
          text,
          v.regex(
            /^(?!__(?:[Hh][Oo][Ss][Tt]|[Ss][Ee][Cc][Uu][Rr][Ee])-)[!#$&'*+\-.^_`|~0-9A-Za-z]+$/,
            "expected a cookie name without prefix",
          ),
        ),
        DEFAULT_SESSION_NAME,
      ),
      seconds: v.optional(whole(1), 900),
      sliding: v.optional(flag, false),
      max_seconds: v.optional(whole(1), 43_200),
      context: v.optional(text, ""),
    }),
    decoy: table({
      kind: v.optional(oneOf("static", "fixed"), "fixed"),
      root: v.optional(text, ""),
      status: v.optional(whole(200, 599), 404),
      body: v.optional(text, "404 Not Found\n"),
      content_type: v.optional(
        v.pipe(text, v.regex(/^[\x20-\x7e]*$/, "expected a content type")),
        "text/plain; charset=utf-8",
      ),
    }),
    websocket: table({
      pass: v.optional(flag, false),
      covert_path: v.optional(
        v.pipe(
          v.string('expected a path such as "/live"'),
          v.regex(/^(?:|\/[!-"$->@-~]*)$/, 'expected a path such as "/live"'),
        ),
        "",
      ),
      covert_upstream: v.optional(
        v.pipe(
          v.string('expected "host:port"'),
          v.check((one) => one === "" || (ADDRESS.test(one) && isPort(one)), 'expected "host:port"'),
        ),
        "",
      ),
    }),
    admin: table({
      enabled: v.optional(flag, false),
      hostname: v.optional(host, "127.0.0.1"),
      port: v.optional(port, 9901),
    }),
    log: table({
      level: v.optional(oneOf("debug", "info", "warning", "error"), "info"),
      format: v.optional(oneOf("text", "json"), "text"),
    }),
  });
}

let schema: ReturnType<typeof makeSchema> | undefined;

/** Tables that may be left out. */
const TABLES: readonly string[] = [
  "listen",
  "identity",
  "sessions",
  "limits",
  "websocket",
  "tickets",
  "session",
  "decoy",
  "admin",
  "log",
];

/**
 * Reads a configuration.
 *
 * @param source the text of `gateway.toml`
 * @param name the file's name, for messages
 *
 * @example
 * ```ts
 * import { parseConfig } from "@betanet/htx/gateway";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(parseConfig("[listen]\nport = 9000\n").listen.port, 9000);
 * assertThrows(
 *   () => parseConfig("[listen]\nport = '9000'\n"),
 *   Error,
 *   "gateway.toml:2: listen.port: expected a whole number from 0 to 65535",
 * );
 * ```
 *
 * @throws {ConfigError} with every problem found
 */
export function parseConfig(source: string, name = "gateway.toml"): GatewayConfig {
  let data: Record<string, unknown>;
  try {
    data = parseToml(source);
  } catch (error) {
    throw new ConfigError(name, [syntaxProblem(error)]);
  }
  const empty = Object.fromEntries(TABLES.map((one) => [one, {}]));
  const result = v.safeParse(schema ??= makeSchema(), { ...empty, ...data }, { abortPipeEarly: true });
  const problems: ConfigProblem[] = [];
  if (!result.success) {
    for (const issue of result.issues) {
      const path = (issue.path ?? []).map((item) => item.key as string | number);
      const key = dotted(path);
      const unknown = issue.type === "strict_object" && issue.expected === "never";
      const table = issue.type === "strict_object" && issue.expected === "Object";
      const missing = issue.type === "strict_object" && !unknown && !table;
      const message = unknown
        ? `unknown key${suggestion(path)}`
        : missing
        ? "is missing"
        : table
        ? `expected a table${typeof issue.input === "string" ? "" : shown(path, issue.input)}`
        : issue.message.startsWith("expected")
        ? `${issue.message}${shown(path, issue.input)}`
        : `expected ${issue.expected ?? "something else"}${shown(path, issue.input)}`;
      problems.push({ line: lineOf(source, path), key, message });
    }
    throw new ConfigError(name, problems);
  }
  const config: GatewayConfig = result.output;
  const problem = (path: (string | number)[], message: string) =>
    problems.push({ line: lineOf(source, path), key: dotted(path), message });
  const { listen, tickets, session, decoy, admin } = config;
  if ((listen.tls_cert === "") !== (listen.tls_key === "")) {
    problem(
      ["listen", listen.tls_cert === "" ? "tls_key" : "tls_cert"],
      "expected tls_cert and tls_key together",
    );
  }
  const { covert_path, covert_upstream } = config.websocket;
  if ((covert_path === "") !== (covert_upstream === "")) {
    problem(
      ["websocket", covert_path === "" ? "covert_path" : "covert_upstream"],
      "expected covert_path and covert_upstream together",
    );
  }
  for (const [i, upstream] of config.upstream.entries()) {
    if (upstream.address === "echo") continue;
    const path = ["upstream", i, "public_key"];
    if (upstream.public_key === "") problem(path, "expected the upstream's public key, which is pinned");
    else if (!isPublicKey(upstream.public_key)) {
      problem(path, "expected a public key: no key has this encoding");
    }
  }
  if (tickets.enabled && tickets.keys.length === 0) {
    problem(["tickets", "keys"], "expected one [[tickets.keys]] table at least, since tickets are enabled");
  }
  const ticketCookie = TicketPolicy.parse(tickets.policy).cookie;
  if ([session.name, `__Host-${session.name}`].some((name) => isSameCookie(ticketCookie, name))) {
    problem(
      session.name === DEFAULT_SESSION_NAME ? ["tickets", "policy"] : ["session", "name"],
      `expected two names: tickets and sessions have one cookie, ${ticketCookie}`,
    );
  }
  const ids = new Set<string>();
  for (const [i, { id }] of tickets.keys.entries()) {
    if (ids.has(id.toLowerCase())) {
      problem(["tickets", "keys", i, "id"], "expected an id of its own: another key has it");
    }
    ids.add(id.toLowerCase());
  }
  if (tickets.store === "redis" && tickets.redis_url === "") {
    problem(["tickets", "redis_url"], 'expected a URL, since the store is "redis"');
  }
  if (session.max_seconds < session.seconds) {
    problem(["session", "max_seconds"], `expected ${session.seconds} or more, as session.seconds is`);
  }
  if (
    admin.enabled && admin.port !== 0 && admin.port === listen.port &&
    overlap(admin.hostname, listen.hostname)
  ) {
    problem(["admin", "port"], "expected another port than listen.port");
  }
  if (decoy.kind === "static" && decoy.root === "") {
    problem(["decoy", "root"], 'expected a folder, since the kind is "static"');
  }
  if (problems.length > 0) throw new ConfigError(name, problems);
  return config;
}

/** The configuration as TOML, with every default, and secrets masked. */
export function printConfig(config: GatewayConfig): string {
  const url = config.tickets.redis_url;
  // Up to the last @ there is: a password may hold any character, also one that makes the URL none.
  const tickets = { ...config.tickets, redis_url: url.replace(/^(rediss?:\/\/).*@/, "$1***@") };
  return stringifyToml({ ...config, tickets });
}

/** Whether something changed that a running gateway cannot take over: those keys, dotted. */
export function needsRestart(before: GatewayConfig, after: GatewayConfig): string[] {
  const keys: string[] = [];
  for (const name of ["listen", "identity", "upstream", "sessions", "websocket", "admin", "log"] as const) {
    const a: object = before[name];
    const b: object = after[name];
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      if (name === "listen" && (key === "trusted_proxies" || key === "proxy_header")) continue;
      if (JSON.stringify(Reflect.get(a, key)) !== JSON.stringify(Reflect.get(b, key))) {
        keys.push(`${name}.${key}`);
      }
    }
  }
  return keys;
}

function isPort(address: string): boolean {
  const number = Number(address.slice(address.lastIndexOf(":") + 1));
  return number >= 1 && number <= 65_535;
}

function isPublicKey(hex: string): boolean {
  try {
    publicKeyFromHex(hex);
    return true;
  } catch {
    return false;
  }
}

/** Whether a cookie would be taken for the other: names count percent-decoded (HTX 1.1 §6). */
function isSameCookie(name: string, other: string): boolean {
  return takeFromCookies(`${name}=`, other).values.length > 0;
}

/** Whether two listeners with one port are in each other's way. */
function overlap(hostname: string, other: string): boolean {
  return hostname === other || [hostname, other].some((one) => one === "0.0.0.0" || one === "::");
}

function dotted(path: readonly (string | number)[]): string {
  return path.map((key) => typeof key === "number" ? `[${key}]` : `.${key}`).join("").replace(/^\./, "");
}

/** What stood there, unless it may be a secret. */
function shown(path: readonly (string | number)[], input: unknown): string {
  if (path.some((key) => /key|url|secret/.test(String(key)))) return "";
  switch (typeof input) {
    case "string":
      return `, got ${JSON.stringify(input.length > 40 ? `${input.slice(0, 40)}…` : input)}`;
    case "number":
    case "boolean":
      return `, got ${input}`;
    case "object":
      return `, got ${Array.isArray(input) ? "a list" : input instanceof Date ? "a date" : "a table"}`;
    default:
      return "";
  }
}

/** The known key that an unknown one may be meant for. */
function suggestion(path: readonly (string | number)[]): string {
  let entries: Record<string, unknown> | undefined = (schema ??= makeSchema()).entries;
  for (const key of path.slice(0, -1)) {
    if (typeof key === "number") continue;
    entries = entriesOf(entries?.[key]);
  }
  if (entries === undefined) return "";
  const wanted = String(path.at(-1));
  const best = Object.keys(entries).map((name) => [distance(name, wanted), name] as const)
    .sort((a, b) => a[0] - b[0])[0];
  const near = Math.max(1, Math.min(3, Math.floor(wanted.length / 3)));
  return best !== undefined && best[0] <= near ? `; did you mean ${best[1]}?` : "";
}

function entriesOf(node: unknown): Record<string, unknown> | undefined {
  for (let at = node, depth = 0; typeof at === "object" && at !== null && depth < 6; depth++) {
    if ("entries" in at) return at.entries as Record<string, unknown>;
    at = "wrapped" in at
      ? at.wrapped
      : "pipe" in at && Array.isArray(at.pipe)
      ? at.pipe[0]
      : "item" in at
      ? at.item
      : undefined;
  }
  return undefined;
}

/** Letters put in, left out, mistaken or swapped with the next: the optimal string alignment distance. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        next[j] = Math.min(next[j]!, before[j - 2]! + 1);
      }
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

function syntaxProblem(error: unknown): ConfigProblem {
  const message = error instanceof Error ? error.message : String(error);
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  const told = typeof cause === "object" && cause !== null && "line" in cause ? Number(cause.line) : NaN;
  const found = /line (\d+)/i.exec(message)?.[1];
  const line = Number.isInteger(told) ? told : found === undefined ? undefined : Number(found);
  const first = message.split("\n", 1)[0]!.replace(/^Invalid TOML document:\s*/, "");
  return { line, key: "", message: `not TOML: ${first}` };
}

/** The line that a key, or the table it is missing from, stands on. */
function lineOf(source: string, path: readonly (string | number)[]): number | undefined {
  const wanted = path.filter((key) => key !== undefined);
  let table: (string | number)[] = [];
  const counts = new Map<string, number>();
  let best: number | undefined;
  let bestLength = 0;
  const inside = continuedLines(source);
  for (const [i, line] of source.split("\n").entries()) {
    if (inside.has(i)) continue;
    const header = /^\s*(\[{1,2})\s*([^\]]+?)\s*\]{1,2}/.exec(line);
    if (header !== null) {
      const names = splitKey(header[2]!);
      table = [];
      for (const [n, name] of names.entries()) {
        table.push(name);
        const id = names.slice(0, n + 1).join("\0");
        const last = n === names.length - 1;
        if (last && header[1] === "[[") counts.set(id, (counts.get(id) ?? -1) + 1);
        const count = counts.get(id);
        if (count !== undefined) table.push(count);
      }
      if (header[1] === "[[") note(table.slice(0, -1), i); // the list as a whole begins with its first table
      note(table, i);
      continue;
    }
    const pair = /^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=/
      .exec(line);
    if (pair !== null) note([...table, ...splitKey(pair[1]!)], i);
  }
  return best;

  function note(found: readonly (string | number)[], index: number): void {
    if (found.length > wanted.length || found.length <= bestLength) return;
    if (found.some((key, n) => key !== wanted[n])) return;
    best = index + 1;
    bestLength = found.length;
  }
}

/** A text, a comment, a bracket, or the end of a line: what decides where a value ends. */
const TOKEN =
  /"""(?:\\[^]|[^\\])*?"""(?!")|'''[^]*?'''(?!')|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[[\]{}\n]/g;

/** The lines, counted from 0, that begin inside of a text or a list, where neither keys nor headers stand. */
function continuedLines(source: string): Set<number> {
  const lines = new Set<number>();
  let line = 0;
  let depth = 0;
  for (const [token] of source.matchAll(TOKEN)) {
    if (token === "\n") {
      line++;
      if (depth > 0) lines.add(line);
    } else if (token === "[" || token === "{") depth++;
    else if (token === "]" || token === "}") depth--;
    else if (token[0] !== "#") {
      for (let left = token.split("\n").length - 1; left > 0; left--) lines.add(++line);
    }
  }
  return lines;
}

function splitKey(key: string): string[] {
  return (key.match(/"[^"]*"|'[^']*'|[^.\s]+/g) ?? []).map((part) => part.replace(/^(["'])(.*)\1$/, "$2"));
}

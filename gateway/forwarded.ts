/**
 * Who the client is, and what the upstream is told of it (`Forwarded`, RFC 7239, and the `X-Forwarded-*` family).
 *
 * A client can write anything into these fields, so what an untrusted peer sends is replaced. Only behind proxies that
 * the operator named is their chain read, from the right: each proxy appends whom it saw, so the first address
 * that is no trusted proxy is the client, and what stands left of it is hearsay.
 *
 * @module
 */

import { parseIpAddress } from "../tickets/mod.ts";

/** Which proxies are believed, and which of their fields. */
export interface ForwardingOptions {
  /** Proxies whose forwarding fields are believed: IP addresses and CIDR blocks. @default {[]} */
  trustedProxies?: readonly string[] | undefined;
  /**
   * Which family those proxies write: one, never both, since the other would be the client's own words.
   *
   * @default {"x-forwarded"}
   */
  proxyHeader?: "x-forwarded" | "forwarded" | undefined;
}

/** What is known of the client of a request. */
export interface ClientFacts {
  /** IP address of the client, or what a trusted proxy said in its place; `unknown` without one. */
  readonly address: string;
  /** The addresses from the client to the peer of this gateway, the peer last. */
  readonly chain: readonly string[];
  /** How the client spoke to the outermost trusted hop. */
  readonly scheme: "http" | "https";
  /** The host that the client asked for. */
  readonly host: string;
}

/** The forwarding fields of a request as they came in: the joined values. */
export interface ForwardingFields {
  /** `forwarded` */
  forwarded?: string | undefined;
  /** `x-forwarded-for` */
  for?: string | undefined;
  /** `x-forwarded-proto` */
  proto?: string | undefined;
  /** `x-forwarded-host` */
  host?: string | undefined;
}

interface Block {
  readonly bytes: Uint8Array;
  readonly bits: number;
}

/** An IPv4 address as sockets that take both kinds show it. */
const MAPPED = /^::ffff:([0-9.]+)$/i;
/** Longest chain of proxies that is followed. */
const MAX_CHAIN = 32;

/** Reads forwarding fields for one list of trusted proxies. */
export class ForwardingPolicy {
  readonly #blocks: readonly Block[];
  readonly #header: "x-forwarded" | "forwarded";

  /**
   * Reads the list.
   *
   * @throws {TypeError} when an entry of `trustedProxies` is neither an IP address nor a CIDR block
   */
  constructor(options: ForwardingOptions = {}) {
    this.#blocks = (options.trustedProxies ?? []).map(parseBlock);
    this.#header = options.proxyHeader ?? "x-forwarded";
  }

  /** Whether any proxy is trusted. */
  get trusting(): boolean {
    return this.#blocks.length > 0;
  }

  /** Whether an address is one of a trusted proxy. */
  isTrusted(address: string): boolean {
    if (this.#blocks.length === 0) return false;
    const bytes = parseIpAddress(address);
    if (bytes === undefined) return false;
    const mapped = unmap(bytes);
    return this.#blocks.some((block) => contains(block, mapped));
  }

  /** What is known of the client, given the peer of the connection. */
  facts(
    peer: string | undefined,
    encrypted: boolean,
    host: string,
    fields: ForwardingFields | undefined,
  ): ClientFacts {
    const scheme = encrypted ? "https" : "http";
    const address = peer === undefined || peer === "" ? "unknown" : peer.replace(MAPPED, "$1");
    if (this.#blocks.length === 0 || fields === undefined || !this.isTrusted(address)) {
      return { address, chain: [address], scheme, host };
    }
    return this.#header === "forwarded"
      ? this.#fromForwarded(address, scheme, host, fields.forwarded ?? "")
      : this.#fromXForwarded(address, scheme, host, fields);
  }

  #fromXForwarded(
    peer: string,
    scheme: "http" | "https",
    host: string,
    fields: ForwardingFields,
  ): ClientFacts {
    const said = (fields.for ?? "").split(",").slice(-MAX_CHAIN).map((text) => readNode(text));
    const chain = this.#chain(peer, said);
    const proto = last(fields.proto)?.toLowerCase();
    const saidHost = last(fields.host);
    return {
      address: chain[0]!,
      chain,
      scheme: proto === "http" || proto === "https" ? proto : scheme,
      host: saidHost !== undefined && isHost(saidHost) ? saidHost : host,
    };
  }

  #fromForwarded(peer: string, scheme: "http" | "https", host: string, value: string): ClientFacts {
    const elements = splitQuoted(value, ",").slice(-MAX_CHAIN).map(parseElement);
    const chain = this.#chain(peer, elements.map((element) => readNode(element.get("for") ?? "")));
    const outer = elements[elements.length - (chain.length - 1)] ?? elements.at(-1);
    const proto = outer?.get("proto")?.toLowerCase();
    const saidHost = outer?.get("host");
    return {
      address: chain[0]!,
      chain,
      scheme: proto === "http" || proto === "https" ? proto : scheme,
      host: saidHost !== undefined && isHost(saidHost) ? saidHost : host,
    };
  }

  /** Follows the chain from the right for as long as the hop that speaks is a trusted one. */
  #chain(peer: string, said: readonly (string | undefined)[]): string[] {
    const chain = [peer];
    for (let i = said.length - 1; i >= 0 && this.isTrusted(chain[0]!); i--) {
      const hop = said[i];
      if (hop === undefined) break; // "unknown", an obfuscated name, or nonsense: nothing left of it can be judged
      chain.unshift(hop);
    }
    return chain;
  }
}

/** Appends what an upstream is told of the client. */
export function appendForwarding(fields: [string, string][], facts: ClientFacts): void {
  const { chain, scheme, host } = facts;
  if (chain.length === 1) {
    const address = chain[0]!;
    const node = address.includes(":") ? `"[${address}]"` : address;
    fields.push(["forwarded", `for=${node};host=${quote(host)};proto=${scheme}`], [
      "x-forwarded-for",
      address,
    ]);
  } else {
    const elements = chain.map((address, i) => {
      const node = address.includes(":") ? `"[${address}]"` : address;
      return i === 0 ? `for=${node};host=${quote(host)};proto=${scheme}` : `for=${node}`;
    });
    fields.push(["forwarded", elements.join(", ")], ["x-forwarded-for", chain.join(", ")]);
  }
  fields.push(["x-forwarded-host", host], ["x-forwarded-proto", scheme]);
}

/** Whether a field of a request speaks of where it came from, and is therefore replaced. `name` is in lower case. */
export function isForwardingField(name: string): boolean {
  return name === "forwarded" || name.startsWith("x-forwarded-") || name === "x-forwarded" ||
    name === "x-real-ip" || name === "x-client-ip" || name === "true-client-ip" ||
    name === "x-cluster-client-ip";
}

function quote(host: string): string {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(host) ? host : `"${host}"`;
}

/** An address, its port and brackets dropped; `undefined` for anything that is no IP address. */
function readNode(text: string): string | undefined {
  let node = text.trim();
  const bracketed = /^\[([^\]]*)\](?::[0-9]{1,5})?$/.exec(node);
  if (bracketed !== null) node = bracketed[1]!;
  else if (/^[0-9.]+:[0-9]{1,5}$/.test(node)) node = node.slice(0, node.indexOf(":"));
  return parseIpAddress(node) === undefined ? undefined : node;
}

function last(list: string | undefined): string | undefined {
  if (list === undefined) return undefined;
  const value = list.slice(list.lastIndexOf(",") + 1).trim();
  return value === "" ? undefined : value;
}

function isHost(text: string): boolean {
  return text.length <= 261 && /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]+)(?::[0-9]{1,5})?$/.test(text);
}

/** Splits at a separator outside of quoted strings. */
function splitQuoted(text: string, separator: string): string[] {
  const parts: string[] = [];
  let quoted = false;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted && c === "\\") i++;
    else if (c === '"') quoted = !quoted;
    else if (c === separator && !quoted) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

/** RFC 7239 §4: the pairs of one element. */
function parseElement(text: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const pair of splitQuoted(text, ";")) {
    const equals = pair.indexOf("=");
    if (equals < 0) continue;
    const name = pair.slice(0, equals).trim().toLowerCase();
    let value = pair.slice(equals + 1).trim();
    if (value.startsWith('"') && value.endsWith('"') && value.length >= 2) {
      value = value.slice(1, -1).replace(/\\(.)/g, "$1");
    }
    if (!pairs.has(name)) pairs.set(name, value);
  }
  return pairs;
}

function parseBlock(text: string): Block {
  const slash = text.indexOf("/");
  const address = parseIpAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) {
    throw new TypeError(
      `Cannot trust proxy: ${JSON.stringify(text)} is neither an IP address nor a CIDR block`,
    );
  }
  const bytes = unmap(address);
  const most = address.length * 8;
  const given = slash < 0
    ? most
    : /^[0-9]{1,3}$/.test(text.slice(slash + 1))
    ? Number(text.slice(slash + 1))
    : NaN;
  if (!(given >= 0 && given <= most)) {
    throw new TypeError(`Cannot trust proxy: ${JSON.stringify(text)} has no prefix length of 0 to ${most}`);
  }
  return { bytes, bits: Math.max(0, given - (address.length - bytes.length) * 8) };
}

/** An IPv4-mapped IPv6 address counts as IPv4. */
function unmap(bytes: Uint8Array): Uint8Array {
  const mapped = bytes.length === 16 && bytes[10] === 0xff && bytes[11] === 0xff &&
    bytes.subarray(0, 10).every((byte) => byte === 0);
  return mapped ? bytes.subarray(12) : bytes;
}

function contains(block: Block, bytes: Uint8Array): boolean {
  if (block.bytes.length !== bytes.length) return false;
  const whole = block.bits >> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== block.bytes[i]) return false;
  const rest = block.bits & 7;
  if (rest === 0) return true;
  return (bytes[whole]! >> (8 - rest)) === (block.bytes[whole]! >> (8 - rest));
}

/**
 * The HTTP face of a store: raw blocks and CARs by the IPFS Trustless Gateway specification
 * (https://specs.ipfs.tech/http-gateways/trustless-gateway/), and uploads. It gives out what the store has and
 * fetches nothing (e-36).
 *
 *     GET, HEAD /ipfs/{cid}[/{path}]   format=raw | car, or Accept
 *     PUT, POST /                      stores the body, answers with its CID
 *     PUT /{name}                      the same, whatever the name: what `curl -T FILE URL/` sends
 *
 * This module is browser compatible.
 *
 * @module
 */

import { CID as MultiformatsCid } from "multiformats/cid";
import { walkPath } from "./_path.ts";
import {
  fileSize,
  MAX_WAITING_PARTS,
  nodeKey,
  readNode,
  requireRoom,
  restful,
  SeenSet,
  type UnixFsNode,
  walkFile,
} from "./_unixfs.ts";
import { BlockNotFoundError, type Blockstore, isNotFound, VerifiedBlockstore } from "./blockstore.ts";
import {
  type CID,
  DAG_PB_CODEC,
  IDENTITY_CODE,
  inlineBlock,
  isTrustedCid,
  joinBlock,
  multihashHex,
  parseCid,
  RAW_CODEC,
  sha256Of,
} from "./cid.ts";
import { addFile } from "./files.ts";
import { HtxError, tell, toHex, utf8 } from "./_core.ts";

/** Options of {@linkcode httpGateway}. */
export interface HttpGatewayOptions {
  /** Where the blocks are; wrapped in a {@linkcode VerifiedBlockstore} unless it is one. @default {in memory} */
  readonly blockstore?: Blockstore | undefined;
  /** Whether `PUT /`, `PUT /{name}` and `POST /` store their body. @default {false} */
  readonly writable?: boolean | undefined;
  /** Longest body stored, in bytes. @default {1073741824} */
  readonly maxBodyBytes?: number | undefined;
  /**
   * Blocks of a CAR without duplicates, at most; a longer one breaks off. So does one in which more links wait for those
   * before them: than this, or than 262144 where this is less.
   *
   * @default {1048576}
   */
  readonly maxCarBlocks?: number | undefined;
  /** Called with each CID that was stored. */
  readonly onStored?: ((cid: CID, size: number) => void) | undefined;
  /** Told of failures that are not the client's: the store's, above all. @default {nobody is} */
  readonly onError?: ((error: unknown) => void) | undefined;
}

/** Default of {@linkcode HttpGatewayOptions.maxBodyBytes}: 1 GiB. */
export const DEFAULT_MAX_BODY_BYTES: number = 1024 ** 3;
/** Default of {@linkcode HttpGatewayOptions.maxCarBlocks}: 1 TiB in blocks of 1 MiB, and some 200 MB to remember them. */
export const DEFAULT_MAX_CAR_BLOCKS: number = 1024 ** 2;

/** Media type of a single block. */
export const RAW_MEDIA_TYPE = "application/vnd.ipld.raw";
/** Media type of a CAR. */
export const CAR_MEDIA_TYPE = "application/vnd.ipld.car";

/** 48 weeks, as the specification has it. */
const CACHE_CONTROL = "public, max-age=29030400, immutable";
/** Segments of a path through directories. */
const MAX_PATH_SEGMENTS = 256;
/** Blocks of a CAR read ahead of its reader. */
const READ_AHEAD = 4;
const DAG_CBOR_CODEC = 0x71;

/** A fetch handler, for `Deno.serve`, `serve()` of the transport, a router … */
export type FetchHandler = (request: Request) => Promise<Response>;

/**
 * Makes the fetch handler of a store.
 *
 * Bodies are stored as UnixFS files with the parameters `unixfs-v1-2025` (IPIP-499): up to 1 MiB that is the raw
 * block of the very bytes, above it a dag-pb root. The answer is the CID. With `?cid=multihash` it is the bare
 * multihash in hex for a raw block, and the CID all the same for a dag-pb root: a bare multihash names raw blocks
 * only, so that what it leads to would be the root's own bytes and not the file.
 *
 * @example
 * ```ts
 * import { httpGateway } from "@betanet/htx/bitswap";
 * import { assertEquals } from "@std/assert";
 *
 * const handler = httpGateway({ writable: true });
 * const stored = await handler(new Request("http://cas/", { method: "PUT", body: "hello" }));
 * const cid = await stored.text();
 * const block = await handler(new Request(`http://cas/ipfs/${cid}?format=raw`));
 * assertEquals(await block.text(), "hello");
 * ```
 */
export function httpGateway(options: HttpGatewayOptions = {}): FetchHandler {
  const {
    writable = false,
    maxBodyBytes = DEFAULT_MAX_BODY_BYTES,
    maxCarBlocks = DEFAULT_MAX_CAR_BLOCKS,
    onError,
  } = options;
  if (!(maxBodyBytes >= 0)) throw new RangeError(`Cannot make HTTP gateway: maxBodyBytes is ${maxBodyBytes}`);
  if (!(maxCarBlocks > 0)) throw new RangeError(`Cannot make HTTP gateway: maxCarBlocks is ${maxCarBlocks}`);
  const store = VerifiedBlockstore.of(options.blockstore);
  return async (request) => {
    try {
      const url = new URL(request.url);
      if (url.pathname.startsWith("/ipfs/")) {
        if (request.method === "GET" || request.method === "HEAD") {
          const response = await retrieve(store, request, url, maxCarBlocks, onError);
          return request.method === "HEAD" ? withoutBody(response) : response;
        }
        throw new Refusal(405, "only GET and HEAD", { allow: "GET, HEAD" });
      }
      const isNamed = request.method === "PUT" && /^\/[^/]+$/.test(url.pathname);
      if (url.pathname !== "/" && !isNamed) throw new Refusal(404, "there is /ipfs/{cid} here");
      if (!writable) throw new Refusal(404, "nothing is stored here");
      if (request.method !== "PUT" && request.method !== "POST") {
        throw new Refusal(405, "only PUT and POST", { allow: "PUT, POST" });
      }
      return await upload(store, request, url, maxBodyBytes, options);
    } catch (error) {
      return refuse(request, error, onError);
    }
  };
}

/** A request that is answered with a status and a word why. */
class Refusal extends Error {
  constructor(readonly status: number, message: string, readonly headers: Record<string, string> = {}) {
    super(message);
  }
}

function refuse(request: Request, error: unknown, onError: HttpGatewayOptions["onError"]): Response {
  const { status, message, headers } = statusOf(error, request);
  if (status >= 500) tell(onError, error);
  const text = `${message}\n`;
  return new Response(request.method === "HEAD" ? null : text, {
    status,
    headers: {
      "content-length": `${utf8(text).length}`,
      "content-type": "text/plain; charset=utf-8",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      ...headers,
    },
  });
}

function statusOf(error: unknown, request: Request): Refusal {
  if (error instanceof Refusal) return error;
  if (isNotFound(error)) {
    const cached = /(?:^|,)\s*only-if-cached\s*(?:,|$)/i.test(request.headers.get("cache-control") ?? "");
    return cached ? new Refusal(412, "not in the store") : new Refusal(404, "not in the store");
  }
  if (error instanceof HtxError && error.code === "MALFORMED") return new Refusal(400, error.message);
  if (error instanceof HtxError && error.code === "LIMIT_EXCEEDED" && error.field === "cid") {
    return new Refusal(400, error.message);
  }
  const isUpload = request.method === "PUT" || request.method === "POST";
  if (isUpload && error instanceof HtxError && error.code === "STORE_FAILED") {
    return new Refusal(507, "the store takes no more");
  }
  return new Refusal(500, "the store failed");
}

/**
 * The answer to HEAD. RFC 9110 §8.6: "A server MUST NOT send Content-Length in such a response unless its field value
 * equals the decimal number of octets that would have been sent" with GET. Servers say 0 for a body that is null, so
 * where the length is not known there is an empty stream.
 */
function withoutBody(response: Response): Response {
  if (!response.headers.has("content-length")) return response;
  // What was begun for the body is let go.
  response.body?.cancel().catch(() => {});
  return new Response(null, response);
}

async function upload(
  store: VerifiedBlockstore,
  request: Request,
  url: URL,
  maxBodyBytes: number,
  { onStored, onError }: Pick<HttpGatewayOptions, "onStored" | "onError">,
): Promise<Response> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  const tooLong = (): Refusal => new Refusal(413, `the body is longer than ${maxBodyBytes} bytes`);
  if (declared > maxBodyBytes) throw tooLong();
  const asMultihash = url.searchParams.get("cid");
  if (asMultihash !== null && asMultihash !== "multihash") {
    throw new Refusal(400, "cid is multihash or absent");
  }
  async function* body(): AsyncGenerator<Uint8Array> {
    let length = 0;
    try {
      for await (const chunk of request.body ?? []) {
        length += chunk.length;
        if (length > maxBodyBytes) throw tooLong();
        yield chunk;
      }
    } catch (error) {
      throw error instanceof Refusal ? error : new Refusal(400, "the body broke off");
    }
  }
  const { cid, size } = await addFile(store, body(), { profile: "unixfs-v1-2025" });
  tell(() => onStored?.(cid, size), cid, onError);
  // What a bare multihash names is read as a raw block: the links under a dag-pb root would be lost.
  const isBare = asMultihash !== null && cid.code === RAW_CODEC;
  return new Response(isBare ? multihashHex(cid) : cid.toString(), {
    status: 201,
    headers: {
      "content-type": "text/plain; charset=utf-8",
      "location": `/ipfs/${cid}`,
      "ipfs-hash": cid.toString(),
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    },
  });
}

type Format = { readonly type: "raw" } | { readonly type: "car"; readonly dups: boolean };

async function retrieve(
  store: VerifiedBlockstore,
  request: Request,
  url: URL,
  maxCarBlocks: number,
  onError: HttpGatewayOptions["onError"],
): Promise<Response> {
  const [cidText = "", ...path] = segments(url.pathname);
  const root = parseCid(cidText);
  const format = negotiate(request, url);
  const headers = new Headers({
    "cache-control": CACHE_CONTROL,
    "x-content-type-options": "nosniff",
    "x-ipfs-path": url.pathname,
    "vary": "accept",
  });
  const named = { format: format.type, ...(format.type === "car" && format.dups ? { "car-dups": "y" } : {}) };
  const location = new URL(url);
  for (const [name, value] of Object.entries(named)) {
    if (url.searchParams.get(name) === value) continue;
    location.searchParams.set(name, value);
    headers.set("content-location", location.pathname + location.search);
  }
  return format.type === "raw"
    ? await retrieveBlock(store, request, url, root, path, headers)
    : await retrieveCar(
      store,
      request,
      url,
      { root, path, dups: format.dups, maxCarBlocks },
      headers,
      onError,
    );
}

/** The CID and the path under it, decoded. */
function segments(pathname: string): string[] {
  const parts = pathname.slice("/ipfs/".length).split("/").filter((part, i) => part !== "" || i === 0);
  if (parts.length > MAX_PATH_SEGMENTS) throw new Refusal(400, "the path is too long");
  try {
    return parts.map(decodeURIComponent);
  } catch {
    throw new Refusal(400, "the path is not percent-encoded UTF-8");
  }
}

/** What is to be sent. */
function negotiate(request: Request, url: URL): Format {
  const { searchParams } = url;
  const asked = searchParams.get("format");
  const accept = request.headers.get("accept");
  const offers = parseAccept(accept ?? "");
  if (asked !== null) {
    if (asked === "raw") return { type: "raw" };
    if (asked === "ipns-record") throw new Refusal(400, "there are no IPNS records under /ipfs/");
    if (asked !== "car") throw new Refusal(406, "format is raw or car");
    // The parameters of a matching Accept still hold.
    const offer = offers.find(({ type, q }) => type === CAR_MEDIA_TYPE && q > 0);
    return carFormat(offer?.parameters ?? new Map(), searchParams, true)!;
  }
  if (accept === null || accept.trim() === "") {
    throw new Refusal(400, `say what you want: format=raw, format=car, or Accept: ${RAW_MEDIA_TYPE}`);
  }
  const named = new Set(offers.map(({ type }) => type));
  for (const { type, parameters, q } of offers) {
    if (q === 0) break;
    for (const meant of typesOf(type, named)) {
      if (meant === RAW_MEDIA_TYPE) return { type: "raw" };
      const format = carFormat(parameters, searchParams, offers.length === 1);
      if (format !== undefined) return format;
    }
  }
  throw new Refusal(406, `there are ${RAW_MEDIA_TYPE} and ${CAR_MEDIA_TYPE} here`);
}

/** The types here that a media range stands for; what a narrower range names is left to that (RFC 9110 §12.5.1). */
function typesOf(range: string, named: ReadonlySet<string>): string[] {
  const isWide = range === "application/*" || (range === "*/*" && !named.has("application/*"));
  return [RAW_MEDIA_TYPE, CAR_MEDIA_TYPE].filter((type) => type === range || (isWide && !named.has(type)));
}

/** The CAR that these parameters ask for; those of the URL go first. */
function carFormat(
  parameters: ReadonlyMap<string, string>,
  query: URLSearchParams,
  only: boolean,
): Format | undefined {
  const value = (name: string): string | undefined => query.get(`car-${name}`) ?? parameters.get(name);
  const version = value("version") ?? "1";
  const order = value("order") ?? "dfs";
  const dups = value("dups") ?? "n";
  const isKnown = version === "1" && (order === "dfs" || order === "unk" || order === "") &&
    (dups === "y" || dups === "n");
  if (isKnown) return { type: "car", dups: dups === "y" };
  if (only) throw new Refusal(406, "CARs here have version=1, order=dfs, and dups=y or dups=n");
  return undefined;
}

interface Offer {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
  /** Weight; 0 is what is not wanted. */
  readonly q: number;
}

/** The media ranges of an Accept field, the preferred first and those not wanted last (RFC 9110 §12.5.1). */
function parseAccept(accept: string): Offer[] {
  const offers: Offer[] = [];
  for (const part of accept.split(",")) {
    const [type = "", ...rest] = part.split(";").map((piece) => piece.trim());
    if (type === "") continue;
    const parameters = new Map<string, string>();
    for (const piece of rest) {
      const at = piece.indexOf("=");
      if (at < 0) continue;
      const value = piece.slice(at + 1).trim().replace(/^"(.*)"$/, "$1");
      parameters.set(piece.slice(0, at).trim().toLowerCase(), value);
    }
    const q = Math.max(0, Number(parameters.get("q") ?? "1") || 0);
    offers.push({ type: type.toLowerCase(), parameters, q });
  }
  return offers.sort((a, b) => b.q - a.q);
}

async function retrieveBlock(
  store: VerifiedBlockstore,
  request: Request,
  url: URL,
  cid: CID,
  path: readonly string[],
  headers: Headers,
): Promise<Response> {
  if (path.length > 0) throw new Refusal(400, "a raw block has no path under it");
  const block = await readBlock(store, cid);
  const etag = `"${cid}.raw"`;
  headers.set("etag", etag);
  headers.set("content-type", RAW_MEDIA_TYPE);
  headers.set("content-disposition", disposition(url, `${cid}.bin`));
  headers.set("x-ipfs-roots", cid.toString());
  if (isNoneMatch(request, etag)) return notModified(headers);
  headers.set("content-length", `${block.length}`);
  return new Response(new Uint8Array(block), { headers });
}

interface CarRequest {
  readonly root: CID;
  readonly path: readonly string[];
  readonly dups: boolean;
  readonly maxCarBlocks: number;
}

async function retrieveCar(
  store: VerifiedBlockstore,
  request: Request,
  url: URL,
  { root, path, dups, maxCarBlocks }: CarRequest,
  headers: Headers,
  onError: HttpGatewayOptions["onError"],
): Promise<Response> {
  const range = entityBytes(url.searchParams.get("entity-bytes"));
  const scope = range === undefined ? dagScope(url.searchParams.get("dag-scope")) : "entity";
  // 404 while one still can: the way down is walked, and the last block read, before the head goes out.
  const { way, roots } = path.length === 0
    ? { way: [root], roots: [root] }
    : await walkDown(store, root, path);
  const last = way.at(-1)!;
  const lastBlock = await readBlock(store, last);
  if (scope === "entity" && range !== undefined) requireOverlap(await nodeOf(last, lastBlock), range);
  // 400 while one still can, too: the walk begins with these links.
  if (scope === "all") await linksOf({ cid: last, bytes: lastBlock });
  const parameters = [...path, scope, range?.from ?? "", range?.to ?? "", dups].join("\n");
  const etag = `W/"${root}.car.${scope}.${toHex(sha256Of(utf8(parameters)).subarray(0, 8))}"`;
  headers.set("etag", etag);
  headers.set("content-type", `${CAR_MEDIA_TYPE}; version=1; order=dfs; dups=${dups ? "y" : "n"}`);
  headers.set("content-disposition", disposition(url, `${root}.car`));
  headers.set("accept-ranges", "none");
  headers.set("x-ipfs-roots", roots.join(","));
  if (isNoneMatch(request, etag)) return notModified(headers);
  if (request.method === "HEAD") {
    return new Response(new ReadableStream({ start: (body) => body.close() }), { headers });
  }
  const left = new AbortController();
  const walk: Walk = { store, dups, maxBlocks: maxCarBlocks, signal: left.signal };
  async function* blocks(): AsyncGenerator<CarBlock> {
    for (const cid of way.slice(0, -1)) yield { cid, bytes: await readBlock(store, cid) };
    yield* scoped(walk, { cid: last, bytes: lastBlock }, scope, range);
  }
  const wanted = dups ? blocks() : once(blocks(), maxCarBlocks);
  return new Response(await carStream(root, wanted, left, onError), { headers });
}

function isNoneMatch(request: Request, etag: string): boolean {
  const given = request.headers.get("if-none-match");
  if (given === null) return false;
  // Weak comparison (RFC 9110 §13.1.2).
  const strip = (tag: string): string => tag.trim().replace(/^W\//, "");
  return given.trim() === "*" || given.split(",").some((tag) => strip(tag) === strip(etag));
}

function notModified(headers: Headers): Response {
  headers.delete("content-type");
  headers.delete("content-disposition");
  return new Response(null, { status: 304, headers });
}

function disposition(url: URL, fallback: string): string {
  const name = url.searchParams.get("filename") ?? fallback;
  const ascii = name.replace(/[^\x20-\x7e]|["\\]/g, "_");
  const extended = ascii === name ? "" : `; filename*=UTF-8''${encodeRfc8187(name)}`;
  return `attachment; filename="${ascii}"${extended}`;
}

function encodeRfc8187(text: string): string {
  const encode = (char: string): string => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text.toWellFormed()).replace(/['()*]/g, encode);
}

/** A block of the store; identity CIDs bring theirs along. */
async function readBlock(store: VerifiedBlockstore, cid: CID): Promise<Uint8Array> {
  const inline = inlineBlock(cid);
  if (inline !== undefined) return inline;
  if (!isTrustedCid(cid)) throw new Refusal(400, "only CIDs with sha2-256 are served");
  const pieces = await store.read(cid);
  if (pieces === undefined) throw new BlockNotFoundError([cid]);
  return joinBlock(pieces);
}

/** What lies between the root and the end of a path, both included. */
interface WayDown {
  /** The CIDs of all blocks on it. */
  readonly way: readonly CID[];
  /** Those that stand for the root and for each segment: of a sharded directory its first block alone. */
  readonly roots: readonly CID[];
}

async function walkDown(store: VerifiedBlockstore, root: CID, path: readonly string[]): Promise<WayDown> {
  const way: CID[] = [];
  const roots: CID[] = [];
  const get = async (cid: CID): Promise<Uint8Array> => {
    const block = await readBlock(store, cid);
    way.push(cid);
    return block;
  };
  for await (const cid of walkPath(root, path, get)) roots.push(cid);
  const last = roots.at(-1) ?? root;
  return { way: [...way.filter((cid) => !cid.equals(last)), last], roots };
}

type Scope = "block" | "entity" | "all";

function dagScope(text: string | null): Scope {
  if (text === null || text === "") return "all";
  if (text === "block" || text === "entity" || text === "all") return text;
  throw new Refusal(400, "dag-scope is block, entity or all");
}

/** Positions of the first and the last byte; negative ones count from the end, `Infinity` is the end. */
interface ByteRange {
  readonly from: number;
  readonly to: number;
}

function entityBytes(text: string | null): ByteRange | undefined {
  if (text === null || text === "") return undefined;
  const match = /^(-?\d{1,15}):(-?\d{1,15}|\*)$/.exec(text);
  if (match === null) throw new Refusal(400, "entity-bytes is from:to");
  return { from: Number(match[1]), to: match[2] === "*" ? Infinity : Number(match[2]) };
}

/** First byte and end of a range in an entity of `size` bytes. */
function absolute({ from, to }: ByteRange, size: number): { from: number; to: number } {
  const position = (at: number): number => at < 0 || Object.is(at, -0) ? size + at : at;
  return { from: Math.max(0, position(from)), to: Math.min(size, position(to) + 1) };
}

function requireOverlap(node: UnixFsNode | undefined, range: ByteRange): void {
  if (node === undefined || !isFile(node)) return;
  const size = fileSize(node);
  if (size > 0 && (range.from >= size || size + range.to < 0)) {
    throw new Refusal(400, "entity-bytes lies outside of the entity");
  }
}

function isFile({ type }: UnixFsNode): boolean {
  return type === "file" || type === "raw";
}

/** The block as UnixFS, or `undefined` when it is something else. */
async function nodeOf(cid: CID, block: Uint8Array): Promise<UnixFsNode | undefined> {
  if (cid.code !== DAG_PB_CODEC && cid.code !== RAW_CODEC) return undefined;
  try {
    return await readNode(cid, block);
  } catch {
    return undefined;
  }
}

interface CarBlock {
  readonly cid: CID;
  readonly bytes: Uint8Array;
}

/** How the blocks of a CAR are gone through. */
interface Walk {
  readonly store: VerifiedBlockstore;
  /** Whether a block comes as often as it occurs. */
  readonly dups: boolean;
  /** Blocks remembered where each comes once. */
  readonly maxBlocks: number;
  /** Aborts when the reader has left. */
  readonly signal: AbortSignal;
}

/** The blocks from the end of the path down that the scope asks for. */
async function* scoped(
  walk: Walk,
  last: CarBlock,
  scope: Scope,
  range: ByteRange | undefined,
): AsyncGenerator<CarBlock> {
  if (scope === "all") return yield* walkDag(walk, last);
  const node = scope === "block" ? undefined : await nodeOf(last.cid, last.bytes);
  if (node === undefined) return yield last;
  if (node.type === "hamt-sharded-directory") {
    // A shard's own parts are linked by their prefix alone; what has a name behind it is an entry.
    const prefix = (node.fanout - 1).toString(16).length;
    return yield* walkDag(walk, last, (name) => name.length === prefix);
  }
  if (!isFile(node)) return yield last;
  const { from, to } = absolute(range ?? { from: 0, to: Infinity }, fileSize(node));
  const { store, dups, maxBlocks, signal } = walk;
  const get = (cid: CID): Promise<Uint8Array> => readBlock(store, cid);
  const options = {
    from,
    to,
    readAhead: READ_AHEAD,
    signal,
    ...(dups ? {} : { seen: new SeenSet(maxBlocks) }),
  };
  for await (const { cid, block } of walkFile(last.cid, last.bytes, get, options)) {
    yield { cid, bytes: block };
  }
}

/**
 * Every block under a root, depth first, links in order. Without `dups` what was walked is not walked again, so
 * that a DAG whose parts are shared many times over costs no more than its blocks.
 */
async function* walkDag(
  { store, dups, maxBlocks, signal }: Walk,
  root: CarBlock,
  follow?: (name: string) => boolean,
): AsyncGenerator<CarBlock> {
  const seen = new SeenSet(maxBlocks);
  seen.add(nodeKey(root.cid));
  const rest = restful(signal);
  yield root;
  const most = Math.max(maxBlocks, MAX_WAITING_PARTS);
  // In reverse: the next one is the last. Copied: a link is a view of its block, which would wait with it.
  const stack: Uint8Array[] = [];
  const push = async (block: CarBlock): Promise<void> => {
    const links = await linksOf(block, follow);
    requireRoom(root.cid, stack.length + links.length, most);
    for (const { bytes } of links.reverse()) stack.push(bytes.slice());
  };
  await push(root);
  for (let link; (link = stack.pop()) !== undefined;) {
    await rest();
    const cid = MultiformatsCid.decode(link);
    if (!dups && !seen.add(nodeKey(cid))) continue;
    const block = { cid, bytes: await readBlock(store, cid) };
    yield block;
    await push(block);
  }
}

/**
 * The links of a block, in order.
 *
 * @throws {HtxError} `MALFORMED` when the block is not what the CID's codec says, or the codec is not known
 */
async function linksOf(
  { cid, bytes }: CarBlock,
  follow: (name: string) => boolean = () => true,
): Promise<CID[]> {
  try {
    switch (cid.code) {
      case RAW_CODEC:
        return [];
      case DAG_PB_CODEC: {
        const { decode } = await import("@ipld/dag-pb");
        return decode(bytes).Links.filter(({ Name = "" }) => follow(Name)).map(({ Hash }) => Hash);
      }
      case DAG_CBOR_CODEC:
        return await cborLinks(bytes);
      default:
        throw new TypeError(`codec 0x${cid.code.toString(16)} is not known here`);
    }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HtxError("MALFORMED", `Cannot walk ${cid}: ${why}`, { field: "block", cause });
  }
}

/** The CIDs of a dag-cbor block: tag 42, a byte 0, the binary CID. */
async function cborLinks(bytes: Uint8Array): Promise<CID[]> {
  const { decode } = await import("cborg");
  const links: CID[] = [];
  decode(bytes, {
    tags: {
      42: (content) => {
        const link: unknown = content();
        if (!(link instanceof Uint8Array) || link[0] !== 0) throw new TypeError("tag 42 holds no CID");
        const cid = MultiformatsCid.decode(link.subarray(1));
        links.push(cid);
        return cid;
      },
    },
  });
  return links;
}

/** Each block once. */
async function* once(blocks: AsyncGenerator<CarBlock>, maxBlocks: number): AsyncGenerator<CarBlock> {
  const seen = new SeenSet(maxBlocks);
  for await (const block of blocks) {
    if (seen.add(nodeKey(block.cid))) yield block;
  }
}

/**
 * A CAR as a stream that reads blocks only as it is read; one that fails in the middle breaks off. `left` aborts when
 * its reader leaves.
 */
async function carStream(
  root: CID,
  blocks: AsyncGenerator<CarBlock>,
  left: AbortController,
  onError: HttpGatewayOptions["onError"],
): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const { CarWriter } = await import("@ipld/car/writer");
  const { writer, out } = CarWriter.create([root]);
  let failure: { error: unknown } | undefined;
  const write = async (): Promise<void> => {
    try {
      for await (const block of blocks) {
        // Identity blocks stand in the links to them already.
        if (block.cid.multihash.code !== IDENTITY_CODE) await writer.put(block);
      }
    } catch (error) {
      failure = { error };
    }
    await writer.close();
  };
  const pieces = out[Symbol.asyncIterator]();
  let writing: Promise<void> | undefined;
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      writing ??= write();
      const { done, value } = await pieces.next();
      if (!done) {
        controller.enqueue(new Uint8Array(value));
        return;
      }
      await writing;
      // Nobody is left to tell, and a reader that leaves is no failure.
      if (left.signal.aborted) return;
      if (failure === undefined) {
        controller.close();
        return;
      }
      tell(onError, failure.error);
      controller.error(failure.error);
    },
    async cancel(): Promise<void> {
      // The generator's own end waits for the step it is at: that step has to hear of it.
      left.abort();
      await blocks.return(undefined).catch(() => {});
    },
  }, { highWaterMark: 0 });
}

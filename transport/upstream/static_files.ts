/**
 * {@linkcode staticFiles}: the files below one folder, as a fetch handler.
 *
 * What is served is decided on names, segment by segment, and then once more on where the file really is: `..` in any
 * spelling, backslashes, NUL, names that begin with a dot, and links that lead out of the folder are all plain 404s.
 * Only the folder itself needs to be readable (`--allow-read=FOLDER`).
 *
 * @module
 */

import { HtxError } from "../../core/mod.ts";
import { CONTENT_TYPES } from "./_content_types.ts";

/** Options of {@linkcode staticFiles}. */
export interface StaticFilesOptions {
  /** The file that a folder's own URL shows; `false` for none. @default {"index.html"} */
  index?: string | false | undefined;
  /** Content types by extension (without the dot, lower case), before the built-in ones. @default {{}} */
  contentTypes?: Readonly<Record<string, string>> | undefined;
  /** The `cache-control` of every file. @default {none is sent} */
  cacheControl?: string | undefined;
  /** The time, in ms since 1970. @default {Date.now} */
  now?: (() => number) | undefined;
}

/** Up to this size a file is read at once; above, it is streamed. */
const WHOLE_BYTES = 65_536;
/** How much of a file is read at a time. */
const CHUNK_BYTES = 65_536;
/** Longer paths are no file's. */
const MAX_PATH_LENGTH = 4096;
/** A file changed this recently may change again within its time stamp: its tag is weak (RFC 9110 §8.8.2.2). */
const SETTLED_MS = 2000;

/**
 * A fetch handler that serves the files below `root`: GET and HEAD, content types, `ETag` and `Last-Modified` with
 * all conditional requests, one range (several are answered whole), index files. A folder without its slash is
 * redirected to it. Files are streamed in constant memory.
 *
 * @example
 * ```ts
 * import { staticFiles } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const root = await Deno.makeTempDir();
 * await Deno.writeTextFile(`${root}/a.txt`, "hello");
 * const handler = staticFiles(root);
 * assertEquals(await (await handler(new Request("http://site.example/a.txt"))).text(), "hello");
 * assertEquals((await handler(new Request("http://site.example/../etc/passwd"))).status, 404);
 * await Deno.remove(root, { recursive: true });
 * ```
 *
 * @throws {HtxError} `UNSUPPORTED` in a runtime without Deno's file system, when the handler is made
 */
export function staticFiles(
  root: string | URL,
  options: StaticFilesOptions = {},
): (request: Request) => Promise<Response> {
  if (typeof Deno === "undefined") {
    throw new HtxError("UNSUPPORTED", "Cannot serve files: this runtime has no Deno file system");
  }
  const files = new StaticFiles(root, options);
  return (request) => files.handle(request);
}

/** A file that may be served. */
interface Found {
  /** The name it was asked for by: with links, not always that of the file. */
  readonly name: string;
  readonly path: string;
  readonly info: Deno.FileInfo;
}

class StaticFiles {
  readonly #root: string | URL;
  readonly #index: string | false;
  readonly #contentTypes: Readonly<Record<string, string>>;
  readonly #cacheControl: string | undefined;
  readonly #now: () => number;
  /** Where the folder really is. */
  #realRoot: string | undefined;

  constructor(root: string | URL, options: StaticFilesOptions) {
    const { index = "index.html", contentTypes = {}, cacheControl, now = Date.now } = options;
    this.#root = root;
    this.#index = index;
    this.#contentTypes = contentTypes;
    this.#cacheControl = cacheControl;
    this.#now = now;
  }

  async handle(request: Request): Promise<Response> {
    const { method } = request;
    if (method !== "GET" && method !== "HEAD") {
      return text(405, "Method Not Allowed", { allow: "GET, HEAD" });
    }
    const url = new URL(request.url);
    const segments = safeSegments(url.pathname);
    if (segments === undefined) return text(404, "Not Found");
    const folder = segments[segments.length - 1] === "";
    const names = folder ? segments.slice(0, -1) : segments;
    let found = await this.#find(names);
    if (found?.info.isDirectory) {
      if (!folder) {
        // Made of checked names only: never `//elsewhere.example`.
        const path = names.map((name) => `/${encodeURIComponent(name)}`).join("");
        return text(308, "Permanent Redirect", { location: `${path}/${url.search}` });
      }
      found = this.#index === false ? undefined : await this.#find([...names, this.#index]);
    } else if (folder) {
      found = undefined;
    }
    if (found === undefined || !found.info.isFile) return text(404, "Not Found");
    return await this.#respond(request, found);
  }

  /** The file or folder of these names, if it is one that may be served. */
  async #find(names: readonly string[]): Promise<Found | undefined> {
    const root = this.#realRoot ??= await Deno.realPath(this.#root);
    try {
      const path = await Deno.realPath([root === "/" ? "" : root, ...names].join("/"));
      if (!isShown(path, root)) return undefined;
      return { name: names.at(-1) ?? "", path, info: await Deno.stat(path) };
    } catch (error) {
      // Whatever the reason, there is nothing here for the client: absent, too long a name, not readable, a loop.
      if (error instanceof Error) return undefined;
      throw error;
    }
  }

  async #respond(request: Request, found: Found): Promise<Response> {
    let file: Deno.FsFile | undefined;
    try {
      // A file that goes away, or is not readable, between the look and the opening.
      file = await Deno.open(found.path);
    } catch {
      return text(404, "Not Found");
    }
    let kept = false;
    try {
      const info = await file.stat(); // of what was opened, whatever stands under the name by now
      const headers = this.#headers(found, info);
      const { size } = info;
      const tag = headers.get("etag");
      const now = this.#now();
      const condition = checkConditions(request, tag, info.mtime, now);
      if (condition === 412) return text(412, "Precondition Failed");
      if (condition === 304) {
        headers.delete("content-type");
        return new Response(null, { status: 304, headers });
      }
      let start = 0;
      let end = size;
      let status = 200;
      const range = request.method === "GET" && rangeApplies(request, tag, info.mtime, now)
        ? parseRange(request.headers.get("range"), size)
        : undefined;
      if (range === "unsatisfiable") {
        return text(416, "Range Not Satisfiable", {
          "content-range": `bytes */${size}`,
          "accept-ranges": "bytes",
        });
      }
      if (range !== undefined) {
        ({ start, end } = range);
        status = 206;
        headers.set("content-range", `bytes ${start}-${end - 1}/${size}`);
      }
      headers.set("content-length", String(end - start));
      if (request.method === "HEAD" || end === start) return new Response(null, { status, headers });
      if (start > 0) await file.seek(start, Deno.SeekMode.Start);
      if (end - start <= WHOLE_BYTES) {
        return new Response(await readExactly(file, end - start), { status, headers });
      }
      kept = true;
      return new Response(streamOf(file, end - start), { status, headers });
    } finally {
      if (!kept) file.close();
    }
  }

  #headers({ name, path }: Found, info: Deno.FileInfo): Headers {
    const headers = new Headers({
      "content-type": this.#contentType(name) ?? this.#contentType(path) ?? "application/octet-stream",
      "x-content-type-options": "nosniff",
      "accept-ranges": "bytes",
    });
    if (this.#cacheControl !== undefined) headers.set("cache-control", this.#cacheControl);
    if (info.mtime !== null) {
      const time = info.mtime.getTime();
      const tag = `"${info.size.toString(16)}-${time.toString(16)}"`;
      headers.set("last-modified", info.mtime.toUTCString());
      headers.set("etag", this.#now() - time >= SETTLED_MS ? tag : `W/${tag}`);
    }
    return headers;
  }

  #contentType(path: string): string | undefined {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const dot = name.lastIndexOf(".");
    const extension = dot < 0 ? "" : name.slice(dot + 1).toLowerCase();
    for (const types of [this.#contentTypes, CONTENT_TYPES]) {
      const type = Object.hasOwn(types, extension) ? types[extension] : undefined;
      if (type !== undefined) return type;
    }
    return undefined;
  }
}

/**
 * The names in a URL's path, decoded once; the last one is empty for a folder's URL. `undefined` when one of them
 * could mean anything but a file of that name in the folder of the name before.
 */
function safeSegments(pathname: string): string[] | undefined {
  if (pathname.length > MAX_PATH_LENGTH || !pathname.startsWith("/")) return undefined;
  const segments: string[] = [];
  const parts = pathname.slice(1).split("/");
  for (const [i, part] of parts.entries()) {
    let name: string;
    try {
      name = decodeURIComponent(part);
    } catch {
      return undefined;
    }
    if (name === "" && i < parts.length - 1) return undefined;
    // Dots, hidden files, separators of any system, control characters, and what Windows takes for more than a name.
    // deno-lint-ignore no-control-regex -- control characters are what is looked for
    if (name.startsWith(".") || /[/\\:\x00-\x1f\x7f]/.test(name) || /[. ]$/.test(name)) return undefined;
    segments.push(name);
  }
  return segments;
}

/** Whether the path is the folder or lies below it, hidden at no step; both are real paths. */
function isShown(path: string, root: string): boolean {
  if (path === root) return true;
  const separator = root.includes("\\") ? "\\" : "/";
  const folder = root.endsWith(separator) ? root : root + separator;
  return path.startsWith(folder) && !path.slice(folder.length - 1).includes(`${separator}.`);
}

/** RFC 9110 §13.2.2: the preconditions in their order. */
function checkConditions(
  request: Request,
  tag: string | null,
  mtime: Date | null,
  now: number,
): 304 | 412 | undefined {
  const { headers } = request;
  const ifMatch = headers.get("if-match");
  const ifNoneMatch = headers.get("if-none-match");
  if (ifMatch !== null) {
    if (!matchesTag(ifMatch, tag, "strong")) return 412;
  } else {
    const since = parseDate(headers.get("if-unmodified-since"), now);
    if (since !== undefined && mtime !== null && seconds(mtime) > since) return 412;
  }
  if (ifNoneMatch !== null) return matchesTag(ifNoneMatch, tag, "weak") ? 304 : undefined;
  const since = parseDate(headers.get("if-modified-since"), now);
  if (since !== undefined && mtime !== null && seconds(mtime) <= since) return 304;
  return undefined;
}

/** RFC 9110 §13.1.5: a range counts unless `if-range` names another version. */
function rangeApplies(request: Request, tag: string | null, mtime: Date | null, now: number): boolean {
  const ifRange = request.headers.get("if-range");
  if (ifRange === null) return true;
  if (ifRange.endsWith('"')) return tag !== null && !tag.startsWith("W/") && ifRange === tag;
  const date = parseDate(ifRange, now);
  // A date is as strong as a tag only when the file was left alone since (§8.8.2.2).
  return date !== undefined && mtime !== null && seconds(mtime) === date &&
    now - mtime.getTime() >= SETTLED_MS;
}

/** Whether a list of entity tags (or `*`) names this one (RFC 9110 §8.8.3.2). */
function matchesTag(list: string, tag: string | null, comparison: "strong" | "weak"): boolean {
  if (list.trim() === "*") return true;
  if (tag === null) return false;
  if (comparison === "strong" && tag.startsWith("W/")) return false;
  const opaque = tag.replace(/^W\//, "");
  for (const [one] of list.matchAll(/(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/g)) {
    if (comparison === "strong" ? one === tag : one.replace(/^W\//, "") === opaque) return true;
  }
  return false;
}

/** The forms of an HTTP-date (RFC 9110 §5.6.7): today's, and the two of old that are still to be understood. */
const DATE_FORMS: readonly RegExp[] = /* @__PURE__ */ Object.freeze([
  /^[A-Z][a-z]{2}, (?<day>\d{2}) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) (?<time>\d{2}:\d{2}:\d{2}) GMT$/,
  /^[A-Z][a-z]+day, (?<day>\d{2})-(?<month>[A-Z][a-z]{2})-(?<year>\d{2}) (?<time>\d{2}:\d{2}:\d{2}) GMT$/,
  /^[A-Z][a-z]{2} (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) (?<time>\d{2}:\d{2}:\d{2}) (?<year>\d{4})$/,
]);

/** Seconds since 1970 of an HTTP-date; anything else counts as absent. */
function parseDate(value: string | null, now: number): number | undefined {
  for (const form of DATE_FORMS) {
    const { day, month, year, time } = form.exec(value ?? "")?.groups ?? {};
    if (day === undefined || year === undefined) continue;
    const millis = Date.parse(`${day} ${month} ${year.length > 2 ? year : fullYear(year, now)} ${time} GMT`);
    return Number.isNaN(millis) ? undefined : millis / 1000;
  }
  return undefined;
}

/** RFC 9110 §5.6.7: two digits that appear to be more than 50 years ahead are the latest such year in the past. */
function fullYear(digits: string, now: number): number {
  const thisYear = new Date(now).getUTCFullYear();
  const year = thisYear - thisYear % 100 + Number(digits);
  return year > thisYear + 50 ? year - 100 : year;
}

function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

/** The one range asked for; `undefined` (the whole file) for several, another unit, or what is no range (RFC 9110 §14.2). */
function parseRange(
  value: string | null,
  size: number,
): { start: number; end: number } | "unsatisfiable" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/i.exec(value ?? "");
  if (match === null) return undefined;
  const [, first = "", last = ""] = match;
  if (first === "") {
    if (last === "") return undefined;
    if (Number(last) === 0) return "unsatisfiable";
    // RFC 9110 §14.1.2: of an empty file it is satisfiable, and no `content-range` can say what it is.
    return size === 0 ? undefined : { start: Math.max(0, size - Number(last)), end: size };
  }
  const start = Number(first);
  const end = last === "" ? size : Math.min(Number(last) + 1, size);
  if (last !== "" && Number(last) < start) return undefined;
  return start >= size ? "unsatisfiable" : { start, end };
}

async function readExactly(file: Deno.FsFile, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const read = await file.read(bytes.subarray(at));
    if (read === null) throw new Error("Cannot serve file: it was cut short while it was read");
    at += read;
  }
  return bytes;
}

/** The next `length` bytes of the file, which is closed with the stream. */
function streamOf(file: Deno.FsFile, length: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let left = length;
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: async (controller) => {
      try {
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, left));
        const read = await file.read(chunk);
        if (read === null) throw new Error("Cannot serve file: it was cut short while it was read");
        left -= read;
        controller.enqueue(read === chunk.length ? chunk : chunk.subarray(0, read));
        if (left > 0) return;
        file.close();
        controller.close();
      } catch (error) {
        close(file);
        throw error;
      }
    },
    cancel: () => close(file),
  }, { highWaterMark: 0 });
}

function close(file: Deno.FsFile): void {
  try {
    file.close();
  } catch {
    // It was closed before.
  }
}

function text(status: number, reason: string, headers: Record<string, string> = {}): Response {
  return new Response(`${status} ${reason}\n`, {
    status,
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff", ...headers },
  });
}

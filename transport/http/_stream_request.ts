/**
 * The `Request` that a fetch handler is given for an exchange.
 *
 * Making one costs Deno more than all else of a small exchange's HTTP, and what it makes is of a shape of its own each
 * time, which the engine keeps until its next major collection. Most handlers look at `method`, `url`, `headers` and the
 * content, and at nothing that a `Request` is needed for. So {@linkcode LazyRequest} answers those by itself, and makes
 * the real one for whatever else is asked, be it by `new Request(request)`, `fetch(request)` or `clone()`: Deno keeps the
 * insides of a `Request` under symbols, and those lead to the insides of the real one. Where that fails its known-answer
 * test, in other runtimes or later versions, every request is real from the start.
 *
 * Either kind answers through a `Proxy`, and shows its members to `for … in`, as a request of the runtime's does.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isOwn } from "../../core/_byte_stream.ts";
import { type Bytes, utf8 } from "../../core/mod.ts";
import type { HttpBody } from "./body.ts";
import type { HttpRequestHead } from "./message.ts";
import type { HttpStream } from "./stream.ts";

/** A request that is being received. */
type Received = HttpRequestHead & { readonly body: Pick<HttpBody, "bytes" | "complete" | "stream"> };
/** What it comes on. */
type Source = Pick<HttpStream, "signal">;

/** What `Request` takes as they are; it refuses some others and rewrites others again. */
const PLAIN_METHODS: ReadonlySet<string> = /* @__PURE__ */ new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
]);

/**
 * A `Request` of what was received, whose signal is the stream's.
 *
 * @throws {TypeError} when `Request` takes no such method, or the authority is no host that a URL can have
 */
export function streamRequest(received: Received, stream: Source): Request {
  return lazyRequests() && PLAIN_METHODS.has(received.method)
    ? new LazyRequest(received, stream)
    : new StreamRequest(received, stream);
}

function urlOf({ scheme, authority, path }: HttpRequestHead): string {
  return `${scheme}://${authority}${path === "*" ? "/*" : path}`;
}

/** fetch has no GET or HEAD with content: it stays unread, as in `Deno.serve`. */
function mayHaveContent(method: string): boolean {
  return method !== "GET" && method !== "HEAD";
}

function append(headers: Headers, fields: Iterable<readonly [string, string]>): void {
  for (const [name, value] of fields) headers.append(name, value);
}

const decoder = /* @__PURE__ */ new TextDecoder();

function textOf(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

function jsonOf(bytes: Uint8Array): unknown {
  return JSON.parse(textOf(bytes));
}

/** Under it a request has itself: what is asked of a `Proxy` of one, or of an object made of one, finds the way there. */
const SELF: unique symbol = /* @__PURE__ */ Symbol("self");

/** The real one. What is made of it, such as a `fetch`, ends with the exchange: its own signal depends on the stream's. */
export class StreamRequest extends Request {
  readonly [SELF]: this = this;
  readonly #stream: Source;
  /** Content that is still to come, behind the stream that `body` is. */
  readonly #received: Received["body"] | undefined;
  #collected = false;

  constructor(received: Received, stream: Source) {
    const { method, fields, body } = received;
    const init: RequestInit & { duplex?: "half" } = { method, redirect: "manual", signal: stream.signal };
    let streamed: Received["body"] | undefined;
    if (mayHaveContent(method)) {
      const { complete } = body;
      if (complete === undefined) {
        streamed = body;
        init.body = body.stream();
        init.duplex = "half";
      } else if (complete.length > 0) {
        init.body = isOwn(complete) ? complete : new Uint8Array(complete);
      }
    }
    super(urlOf(received), init);
    append(this.headers, fields);
    this.#stream = stream;
    this.#received = streamed;
  }

  override get signal(): AbortSignal {
    return this[SELF].#stream.signal;
  }

  override get bodyUsed(): boolean {
    return this[SELF].#collected || super.bodyUsed;
  }

  override arrayBuffer(): Promise<ArrayBuffer> {
    return this[SELF].#collect()?.then(({ buffer }) => buffer) ?? super.arrayBuffer();
  }

  override bytes(): Promise<Bytes> {
    return this[SELF].#collect() ?? super.bytes();
  }

  override text(): Promise<string> {
    return this[SELF].#collect()?.then(textOf) ?? super.text();
  }

  override json(): Promise<unknown> {
    return this[SELF].#collect()?.then(jsonOf) ?? super.json();
  }

  override clone(): Request {
    return new Request(super.clone(), { signal: this.signal });
  }

  /** The content without the hops of its stream, where that is nobody's yet; it is used then, as any other's. */
  #collect(): Promise<Bytes> | undefined {
    const received = this.#received;
    if (received === undefined || this.bodyUsed || received.stream().locked) return undefined;
    this.#collected = true;
    received.stream().getReader();
    return received.bytes();
  }
}

/** `Request` without what its constructor does. */
const Unmade = /* @__PURE__ */ (() => {
  function Unmade() {}
  Unmade.prototype = Request.prototype;
  // True as far as it goes: what an instance lacks is what LazyRequest supplies, and the known-answer test looks at that.
  return Unmade as unknown as new () => Request;
})();

/** A request that becomes a real one when there is no way around it. */
class LazyRequest extends Unmade {
  readonly [SELF]: this = this;
  readonly #received: Received;
  readonly #stream: Source;
  readonly #url: string;
  #headers: Headers | undefined;
  /** Whether the content was taken from here. */
  #taken = false;
  #real: Request | undefined;

  constructor(received: Received, stream: Source) {
    super();
    this.#received = received;
    this.#stream = stream;
    this.#url = new URL(urlOf(received)).href;
  }

  override get method(): string {
    return this[SELF].#received.method;
  }

  override get url(): string {
    return this[SELF].#url;
  }

  override get signal(): AbortSignal {
    return this[SELF].#stream.signal;
  }

  override get headers(): Headers {
    return this[SELF].#ownHeaders();
  }

  override get body(): ReadableStream<Bytes> | null {
    const self = this[SELF];
    return self.#empty ? null : self.#made().body;
  }

  override get bodyUsed(): boolean {
    const self = this[SELF];
    return self.#taken || (self.#real?.bodyUsed ?? false);
  }

  override arrayBuffer(): Promise<ArrayBuffer> {
    const self = this[SELF];
    const bytes = self.#take();
    return bytes === undefined ? self.#made().arrayBuffer() : Promise.resolve(new Uint8Array(bytes).buffer);
  }

  override bytes(): Promise<Bytes> {
    const self = this[SELF];
    const bytes = self.#take();
    return bytes === undefined ? self.#made().bytes() : Promise.resolve(new Uint8Array(bytes));
  }

  override text(): Promise<string> {
    const self = this[SELF];
    const bytes = self.#take();
    return bytes === undefined ? self.#made().text() : Promise.resolve(textOf(bytes));
  }

  override async json(): Promise<unknown> {
    const self = this[SELF];
    const bytes = self.#take();
    return bytes === undefined ? await self.#made().json() : jsonOf(bytes);
  }

  override clone(): Request {
    return this[SELF].#made().clone();
  }

  #ownHeaders(): Headers {
    if (this.#headers === undefined) {
      this.#headers = new Headers();
      append(this.#headers, this.#received.fields);
    }
    return this.#headers;
  }

  get #empty(): boolean {
    return !mayHaveContent(this.#received.method) || this.#received.body.complete?.length === 0;
  }

  /** All of the content, where it is here and nobody has asked for it as anything else. */
  #take(): Uint8Array | undefined {
    const { complete } = this.#received.body;
    if (this.#real !== undefined || this.#taken || complete === undefined || this.#empty) return undefined;
    this.#taken = true;
    return complete;
  }

  /** The real request, as the handler may have left this one. */
  #made(): Request {
    if (this.#real === undefined) {
      this.#real = new StreamRequest(this.#received, this.#stream);
      if (this.#taken) this.#real.bytes().catch(() => {}); // what has been read is nobody else's
    }
    const { headers } = this.#real;
    if (this.#headers !== undefined) {
      for (const name of [...headers.keys()]) headers.delete(name);
      append(headers, this.#headers);
    }
    return this.#real;
  }

  /** Leads from the symbols under which this runtime keeps a request's insides to those of the real one. */
  static adopt(): void {
    for (const symbol of Object.getOwnPropertySymbols(new Request("http://known.example/"))) {
      Object.defineProperty(LazyRequest.prototype, symbol, {
        get(this: LazyRequest): unknown {
          return Reflect.get(this[SELF].#made(), symbol);
        },
        set(this: LazyRequest, value: unknown): void {
          Reflect.set(this[SELF].#made(), symbol, value);
        },
      });
    }
  }
}

let works: boolean | undefined;

/** Whether a {@linkcode LazyRequest} is as good as a real one here. Looked at once, when the first request is made. */
function lazyRequests(): boolean {
  if (works === undefined) {
    seenAsRequest(StreamRequest.prototype);
    seenAsRequest(LazyRequest.prototype);
    works = answersKnown();
  }
  return works;
}

/** What `Request` has is enumerable, so that a copy by `for … in` is one; and a request's constructor makes requests. */
function seenAsRequest(prototype: Request): void {
  for (const name of Object.getOwnPropertyNames(prototype)) {
    Object.defineProperty(
      prototype,
      name,
      name === "constructor" ? { value: Request } : { enumerable: true },
    );
  }
}

function answersKnown(): boolean {
  try {
    LazyRequest.adopt();
    const controller = new AbortController();
    const known = (method: string) => {
      const content = utf8("known");
      const body = {
        complete: content,
        bytes: () => Promise.resolve(content),
        stream: () => new ReadableStream<Bytes>(),
      };
      const fields = [["x-known", "1"]] as const;
      return new LazyRequest(
        { method, scheme: "http", authority: "known.example", path: "/a?b", fields, body },
        controller,
      );
    };
    const request = known("POST");
    request.headers.set("x-known", "2");
    const inherited = request instanceof Request && request.redirect === "manual" && !request.bodyUsed;
    const copy = new Request(request);
    const copied = copy.method === "POST" && copy.url === "http://known.example/a?b" &&
      copy.headers.get("x-known") === "2" && copy.body !== null && request.bodyUsed;

    const asked = known("PUT");
    const clone = asked.clone();
    const cloned = clone.method === "PUT" && clone.headers.get("x-known") === "1" && !asked.bodyUsed;

    const get = new Request(known("GET"), { headers: { "x-known": "3" } });
    const changed = get.body === null && get.headers.get("x-known") === "3";

    controller.abort();
    return inherited && copied && cloned && changed && copy.signal.aborted && clone.signal.aborted;
  } catch {
    return false;
  }
}

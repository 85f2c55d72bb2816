/**
 * Requests through the tunnel, each on a stream of its own, counted as their bytes pass. Bodies are never held: they are
 * hashed as they come by and let go.
 *
 * @module
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { type HtxConnection, HtxError, toHex } from "@betanet/htx/core";
import {
  exchangeOverStream,
  type HttpContent,
  type HttpField,
  type HttpResponse,
} from "@betanet/htx/transport";

/** A request under way or done. */
export class Exchange {
  /** The stream's number. */
  stream: number | undefined;
  /** Of the response; `undefined` until it came. */
  status: number | undefined;
  /** Bytes of content sent and received so far. */
  sent = 0;
  received = 0;
  /** How it ended; `undefined` while it runs. */
  outcome: "done" | "stopped" | { readonly error: unknown } | undefined;
  readonly started: number = performance.now();
  readonly method: string;
  readonly path: string;
  readonly #stop = new AbortController();

  constructor(method: string, path: string) {
    this.method = method;
    this.path = path;
  }

  /** Milliseconds since it began, or that it took. */
  get elapsed(): number {
    return (this.#ended ?? performance.now()) - this.started;
  }
  #ended: number | undefined;

  /** Gives it up. */
  stop(): void {
    this.#stop.abort(new DOMException("stopped", "AbortError"));
  }

  /** Sends it; `use` is given the response and settles when it wants no more of it. */
  async run<T>(
    connection: HtxConnection,
    body: HttpContent | null,
    fields: readonly HttpField[],
    use: (response: HttpResponse, read: () => Promise<Uint8Array | null>) => Promise<T>,
  ): Promise<T> {
    const { signal } = this.#stop;
    try {
      const stream = await connection.createBidirectionalStream({ signal });
      this.stream = stream.id;
      const head = { method: this.method, scheme: "http", authority: "htx.invalid", path: this.path, fields };
      const response = await exchangeOverStream(stream, { ...head, body }, { signal });
      this.status = response.status;
      const read = async () => {
        const chunk = await response.body.read();
        this.received += chunk?.length ?? 0;
        return chunk;
      };
      const result = await use(response, read);
      this.outcome = "done";
      return result;
    } catch (error) {
      this.outcome = signal.aborted ? "stopped" : { error };
      throw error;
    } finally {
      this.#ended = performance.now();
    }
  }
}

/** A response as text, of which no more than `limit` bytes are kept. */
export interface TextResponse {
  readonly status: number;
  readonly fields: readonly HttpField[];
  readonly text: string;
  readonly cut: boolean;
}

/** Fetches text; past `limit` bytes the rest is let go. */
export async function fetchText(
  exchange: Exchange,
  connection: HtxConnection,
  limit: number,
): Promise<TextResponse> {
  return await exchange.run(connection, null, [], async (response, read) => {
    const decoder = new TextDecoder();
    const { status, fields } = response;
    let text = "";
    for (let length = 0;;) {
      const chunk = await read();
      if (chunk === null) return { status, fields, text: text + decoder.decode(), cut: false };
      text += decoder.decode(chunk.subarray(0, limit - length), { stream: true });
      length += chunk.length;
      if (length <= limit) continue;
      response.body.cancel();
      return { status, fields, text, cut: true };
    }
  });
}

/** Reads server-sent events until the server ends them: what stands behind each `data:`. */
export async function readEvents(
  exchange: Exchange,
  connection: HtxConnection,
  onData: (data: string) => void,
): Promise<void> {
  await exchange.run(connection, null, [["accept", "text/event-stream"]], async (response, read) => {
    if (response.status !== 200) throw new Error(`The server answered ${response.status}`);
    const decoder = new TextDecoder();
    let rest = "";
    for (let chunk = await read(); chunk !== null; chunk = await read()) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) if (line.startsWith("data: ")) onData(line.slice(6));
    }
  });
}

/** A file that was moved: both ends' word on it. */
export interface Moved {
  readonly bytes: number;
  /** SHA-256 as computed in this page. */
  readonly here: string;
  /** SHA-256 as the server says. */
  readonly there: string;
}

/** Receives `length` bytes, and hashes them as they come. */
export async function receiveFile(exchange: Exchange, connection: HtxConnection): Promise<Moved> {
  return await exchange.run(connection, null, [], async (response, read) => {
    await requireSuccess(response, read);
    const digest = response.fields.find(([name]) => name === "content-digest")?.[1] ?? "";
    const there = fromBase64(/^sha-256=:([A-Za-z0-9+/]{43}=):$/.exec(digest)?.[1] ?? "");
    const hash = sha256.create();
    for (let chunk = await read(); chunk !== null; chunk = await read()) hash.update(chunk);
    return { bytes: exchange.received, here: toHex(hash.digest()), there };
  });
}

/** Sends a file, hashing what goes out. */
export async function sendFile(
  exchange: Exchange,
  connection: HtxConnection,
  file: ReadableStream<Uint8Array>,
  length: number,
): Promise<Moved> {
  const hash = sha256.create();
  const reader = file.getReader();
  const counted = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) return controller.close();
      hash.update(value);
      exchange.sent += value.length;
      controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  const fields: HttpField[] = [["content-type", "application/octet-stream"], [
    "content-length",
    String(length),
  ]];
  return await exchange.run(connection, counted, fields, async (response, read) => {
    const answer: unknown = JSON.parse(await requireSuccess(response, read, true));
    const there = typeof answer === "object" && answer !== null ? Reflect.get(answer, "sha256") : undefined;
    if (typeof there !== "string") {
      throw new HtxError("MALFORMED", "The server told no SHA-256", { field: "sha256" });
    }
    return { bytes: exchange.sent, here: toHex(hash.digest()), there };
  });
}

/** Throws where the server refused, with its words; gives the content where it is asked for. */
async function requireSuccess(
  response: HttpResponse,
  read: () => Promise<Uint8Array | null>,
  whole = false,
): Promise<string> {
  const success = response.status >= 200 && response.status <= 299;
  if (success && !whole) return "";
  const decoder = new TextDecoder();
  let text = "";
  for (let chunk = await read(); chunk !== null && text.length < 4096; chunk = await read()) {
    text += decoder.decode(chunk, { stream: true });
  }
  if (!success) throw new Error(`The server answered ${response.status}: ${text}`);
  return text;
}

function fromBase64(text: string): string {
  return toHex(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
}

// The bodies of fetch handlers' requests and responses where they take a shorter way than their streams.

import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { concat, HtxError, utf8 } from "../../core/mod.ts";
import { hasStaticBody } from "./_static_body.ts";
import { type PairStream, streamPair } from "./_stream_pair.ts";
import {
  encodeHttpChunk,
  encodeHttpEnd,
  encodeHttpRequest,
  encodeHttpResponse,
  exchangeOverStream,
  fetchOverStream,
  type HttpHandler,
  type HttpRequestParts,
  serveHttpStream,
} from "./mod.ts";

const GET = { method: "GET", scheme: "https", authority: "app.example", path: "/", fields: [] };
const TEXT = "a body of some length, ".repeat(5000);

/** One exchange: what the client got, and what the handler failed with. */
async function exchange(handler: HttpHandler, request: Partial<HttpRequestParts> = {}) {
  const { client, server } = streamPair();
  const errors: unknown[] = [];
  const served = serveHttpStream(server, handler, { onError: (error) => errors.push(error) });
  const response = await fetchOverStream(client, { ...GET, ...request });
  const text = await response.text();
  await served;
  return { status: response.status, headers: response.headers, text, errors };
}

/** A handler that is posted `TEXT` in pieces, the first of them alone at first. */
async function posted(use: (request: Request) => Promise<unknown>, body: Uint8Array = utf8(TEXT)) {
  let told: unknown;
  const { text, errors } = await exchange(async (request) => {
    told = await use(request);
    return new Response("done");
  }, {
    method: "POST",
    body: new ReadableStream<Uint8Array>({
      async start(controller) {
        for (let at = 0; at < body.length; at += 30_000) {
          controller.enqueue(body.slice(at, at + 30_000));
          await new Promise<void>((resolve) => setTimeout(resolve, 0));
        }
        controller.close();
      },
    }),
  });
  assertEquals({ text, errors }, { text: "done", errors: [] });
  return told;
}

const bodies: [string, BodyInit | null, string][] = [
  ["text", TEXT, TEXT],
  ["no text", "", ""],
  ["bytes", utf8(TEXT), TEXT],
  ["a part of a buffer", utf8(`__${TEXT}`).subarray(2), TEXT],
  ["an ArrayBuffer", utf8(TEXT).buffer, TEXT],
  ["search parameters", new URLSearchParams({ a: "b c" }), "a=b+c"],
  ["a blob", new Blob([TEXT]), TEXT],
  ["nothing", null, ""],
];
for (const [name, body, text] of bodies) {
  Deno.test(`a Response made of ${name} is sent as it is, again and again`, async () => {
    const response = new Response(body, { status: 203, headers: { "x-a": "b" } });
    for (const one of [response.clone(), response]) {
      const got = await exchange(() => one);
      assertEquals({ ...got, headers: got.headers.get("x-a") }, {
        status: 203,
        headers: "b",
        text,
        errors: [],
      });
      assertEquals(one.bodyUsed, body !== null);
    }
  });
}

Deno.test("hasStaticBody() tells bytes and text from streams, and knows when they have been read", async () => {
  const of = (body: BodyInit | null) => {
    const response = new Response(body);
    void response.headers;
    return response;
  };
  // Deno 2.9 keeps a body where it is looked for; a version that does not has every body read as a stream.
  for (const body of ["text", "", utf8("bytes"), utf8("bytes").buffer, new URLSearchParams("a=b")]) {
    assert(hasStaticBody(of(body)));
  }
  const json = Response.json({ a: 1 });
  void json.headers;
  assert(hasStaticBody(json));
  for (const body of [null, new ReadableStream(), new Blob(["blob"]), new FormData()]) {
    assert(!hasStaticBody(of(body)));
  }
  const read = of("text");
  await read.text();
  const taken = of("text");
  assert(taken.body !== null);
  const torn = of(new ReadableStream({ start: (controller) => controller.close() }));
  torn.clone();
  for (const response of [read, taken, torn]) assert(!hasStaticBody(response));
});

Deno.test("a streamed Response goes out chunk by chunk, before it is complete", async () => {
  const { client, server } = streamPair();
  const source = Promise.withResolvers<ReadableStreamDefaultController<Uint8Array>>();
  const served = serveHttpStream(server, () => new Response(new ReadableStream({ start: source.resolve })));
  const response = await fetchOverStream(client, GET);
  const controller = await source.promise;
  const reader = response.body!.getReader();
  for (const part of ["one", "two"]) {
    controller.enqueue(utf8(part));
    assertEquals((await reader.read()).value, utf8(part));
  }
  controller.close();
  assertEquals((await reader.read()).done, true);
  await served;
});

Deno.test("a Response of bytes that its content-length does not fit is answered 500, and reported", async () => {
  for (const body of ["abc", TEXT]) {
    const got = await exchange(() => new Response(body, { headers: { "content-length": "4" } }));
    assertEquals([got.status, got.text, got.errors.length], [500, "500 Internal Server Error\n", 1]);
  }
});

Deno.test("a Response of bytes to a HEAD sends none of them", async () => {
  const got = await exchange(() => new Response(TEXT, { headers: { "content-length": `${TEXT.length}` } }), {
    method: "HEAD",
  });
  assertEquals([got.status, got.text, got.errors], [200, "", []]);
  assertEquals(got.headers.get("content-length"), `${TEXT.length}`);
});

Deno.test("a request's content is read whole in every way that fetch has", async () => {
  assertEquals(await posted((request) => request.text()), TEXT);
  assertEquals(await posted((request) => request.bytes()), utf8(TEXT));
  assertEquals(await posted(async (request) => new Uint8Array(await request.arrayBuffer())), utf8(TEXT));
  assertEquals(await posted(async (request) => await (await request.blob()).text()), TEXT);
  assertEquals(await posted((request) => request.json(), utf8(JSON.stringify({ TEXT }))), { TEXT });
  assertEquals(await posted((request) => new Response(request.body).text()), TEXT);
  assertEquals(await posted((request) => new Request(request).text()), TEXT);
  // https://fetch.spec.whatwg.org/#dom-body-text: "UTF-8 decode", which takes a byte order mark away.
  const marked = concat(new Uint8Array([0xef, 0xbb, 0xbf]), utf8(TEXT));
  assertEquals(await posted((request) => request.text(), marked), TEXT);
});

Deno.test("a request's content that has been read is used, in every way of reading it", async () => {
  await posted(async (request) => {
    assertEquals(request.bodyUsed, false);
    const text = request.text();
    assertEquals([request.bodyUsed, request.body!.locked], [true, true]);
    await assertRejects(() => request.text(), TypeError);
    await assertRejects(() => request.bytes(), TypeError);
    await assertRejects(() => request.blob(), TypeError);
    assertEquals(await text, TEXT);
    await assertRejects(() => request.json(), TypeError);
    try {
      new Request(request);
      throw new Error("a used request was taken");
    } catch (error) {
      assert(error instanceof TypeError);
    }
  });
});

Deno.test("a request's content behind a reader, or cloned, is read through its streams", async () => {
  await posted(async (request) => {
    const reader = request.body!.getReader();
    const { value } = await reader.read();
    await assertRejects(() => request.text(), TypeError);
    assert(value !== undefined && value.length > 0);
    await reader.cancel();
    await assertRejects(() => request.text(), TypeError);
  });
  const both = await posted(async (request) => {
    const clone = request.clone();
    return await Promise.all([request.text(), clone.text()]);
  });
  assertEquals(both, [TEXT, TEXT]);
});

Deno.test("content that is no JSON, or never ends, fails its reader", async () => {
  await posted((request) => assertRejects(() => request.json(), SyntaxError));
  const { client, server } = streamPair();
  const failed = Promise.withResolvers<void>();
  const abort = new AbortController();
  const served = serveHttpStream(server, async (request) => {
    const reading = request.bytes();
    abort.abort(new Error("the client gives up"));
    await assertRejects(() => reading);
    failed.resolve();
    return new Response();
  });
  const body = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(utf8(TEXT)) });
  const request = { method: "POST", scheme: "https", authority: "a", path: "/", fields: [], body };
  await assertRejects(() => fetchOverStream(client, request, { signal: abort.signal }), Error, "gives up");
  await failed.promise;
  await served;
});

function supportsByob(stream: ReadableStream): boolean {
  try {
    stream.getReader({ mode: "byob" }).releaseLock();
    return true;
  } catch {
    return false;
  }
}

/** The bytes of what two ends are to agree on. */
function counting(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => i % 251);
}

/** Reads `stream` to its end, each time with the next kind of reader: 0 for a default one, else one with so much room. */
async function readWith(stream: ReadableStream<Uint8Array>, rooms: readonly number[]): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (let i = 0;; i++) {
    const room = rooms[i % rooms.length]!;
    let got: { done: boolean; value: Uint8Array | undefined };
    if (room === 0) {
      const reader = stream.getReader();
      const { done, value } = await reader.read();
      got = { done, value };
      reader.releaseLock();
    } else {
      const reader = stream.getReader({ mode: "byob" });
      const { done, value } = await reader.read(new Uint8Array(room));
      got = { done, value };
      reader.releaseLock();
    }
    if (got.done) return concat(...pieces);
    pieces.push(got.value!);
  }
}

Deno.test("a streamed request and any response have a byte stream, whole however it is cut and read", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5000 })), {
        maxLength: 30,
      }),
      fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 3000 })), { minLength: 1, maxLength: 5 }),
      fc.constantFrom(1, 7, 1000, Infinity),
      fc.boolean(),
      async (sizes, rooms, readSize, known) => {
        const content = counting(sizes.reduce((sum, size) => sum + size, 0));
        const { client, server } = streamPair({ readSize });
        const pieces = () => {
          let [at, next] = [0, 0];
          return new ReadableStream<Uint8Array>({
            pull: (controller) => {
              const size = sizes[next++];
              if (size === undefined) return controller.close();
              controller.enqueue(content.slice(at, at += size));
            },
          });
        };
        let posted: Uint8Array | undefined;
        const served = serveHttpStream(server, async (request) => {
          // Content that is all here is as in Deno: it takes default readers.
          const takes = request.body !== null && supportsByob(request.body) ? rooms : [0];
          posted = request.body === null ? new Uint8Array() : await readWith(request.body, takes);
          const headers: HeadersInit = known ? { "content-length": String(content.length) } : {};
          return new Response(pieces(), { headers });
        });
        const response = await fetchOverStream(client, { ...GET, method: "POST", body: pieces() });
        const got = response.body === null ? new Uint8Array() : await readWith(response.body, rooms);
        await served;
        assertEquals([posted, got], [content, content]);
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("a body that breaks off gives what came before it to a BYOB reader, then its error", async () => {
  const { client, server } = streamPair();
  const served = serveHttpStream(server, () =>
    new Response(
      new ReadableStream<Uint8Array>({
        start(controller) {
          controller.enqueue(utf8("what came"));
        },
        async pull(controller) {
          await new Promise<void>((resolve) => setTimeout(resolve, 0));
          controller.error(new Error("broke"));
        },
      }),
    ), { onError: () => {} });
  const response = await fetchOverStream(client, GET);
  const reader = response.body!.getReader({ mode: "byob" });
  const { value } = await reader.read(new Uint8Array(64));
  assertEquals(value, utf8("what came"));
  await assertRejects(() => reader.read(new Uint8Array(64)), HtxError);
  await served;
});

Deno.test("a BYOB reader that lets go while a read waits loses nothing of what comes, to whoever reads next", async () => {
  for (const room of [0, 3]) {
    for (const early of [false, true]) {
      const { client, server } = streamPair();
      const source = Promise.withResolvers<ReadableStreamDefaultController<Uint8Array>>();
      const served = serveHttpStream(
        server,
        () => new Response(new ReadableStream({ start: source.resolve })),
      );
      const response = await fetchOverStream(client, GET);
      const controller = await source.promise;
      const first = response.body!.getReader({ mode: "byob" });
      const waiting = assertRejects(() => first.read(new Uint8Array(2)), TypeError);
      await new Promise<void>((resolve) => setTimeout(resolve, 0)); // the read has reached the stream
      first.releaseLock();
      await waiting;
      const reading = early ? readWith(response.body!, [room]) : undefined;
      controller.enqueue(utf8("all of it"));
      controller.close();
      await served;
      assertEquals(await (reading ?? readWith(response.body!, [room])), utf8("all of it"));
    }
  }
});

Deno.test("a small answer is a Response as any other, sent on as bytes, and takes a BYOB reader", async () => {
  const fetched = async (content: string) => {
    const { client, server } = streamPair();
    const served = serveHttpStream(server, () => new Response(content, { headers: { "x-a": "b" } }));
    const response = await fetchOverStream(client, GET);
    await served;
    return response;
  };
  const members = (response: Response) => {
    const names: string[] = [];
    for (const name in response) names.push(name);
    return names.sort();
  };
  const plain = await fetched("small");
  assertEquals(members(plain), members(new Response("small")));
  assertEquals([plain.constructor, plain.body === plain.body, plain.bodyUsed], [Response, true, false]);
  assertEquals(await readWith(plain.body!, [2, 0, 2]), utf8("small"));
  assertEquals([plain.bodyUsed, (await fetched("")).body === null], [true, false]);

  const proxied = new Proxy(await fetched("small"), {});
  assertEquals(await readWith(proxied.body!, [3]), utf8("small"));
  const cloned = await fetched("small");
  assertEquals([await cloned.clone().text(), await cloned.text()], ["small", "small"]);
  const looked = await fetched("small");
  assert(looked.body !== null);
  assertEquals(await looked.text(), "small");
  const given = await fetched("small");
  void given.headers;
  assert(hasStaticBody(given));
  const dropped = await fetched("small");
  await dropped.body!.cancel();
  assert(dropped.bodyUsed);
});

/** Takes a chunk away from where it came from, memory and all, as `postMessage` with a transfer list does. */
function transferred(chunk: Uint8Array): Uint8Array {
  assert(chunk.buffer instanceof ArrayBuffer);
  return structuredClone(chunk, { transfer: [chunk.buffer] });
}

Deno.test("chunks of a body are their reader's, who may transfer their memory, however they came in", async () => {
  const head = { ...GET, method: "POST" };
  const layouts = [[10, 10, 10], [20_000, 3000, 10], [10, 20_000, 10], [50_000, 50_000], [70_000, 1, 70_000]];
  for (const sizes of layouts) {
    const pieces = sizes.map((size, i) => new Uint8Array(size).fill(i + 1));
    const content = concat(...pieces);
    const behindHead = [...pieces.map((piece) => encodeHttpChunk(piece)), encodeHttpEnd([["x-end", "1"]])];
    for (const at of [Infinity, 100_000, 30_000, 10_001]) {
      const send = async (to: PairStream, start: Uint8Array) => {
        const message = concat(start, ...behindHead);
        for (let from = 0; from < message.length; from += at) {
          await to.write(message.slice(from, from + at), { end: from + at >= message.length });
        }
      };
      const collect = async (body: ReadableStream<Uint8Array>) => {
        const got: Uint8Array[] = [];
        for await (const chunk of body) got.push(transferred(chunk));
        return concat(...got);
      };
      const told = `${sizes} in ${at}`;
      { // a response
        const { client, server } = streamPair();
        const sent = send(server, encodeHttpResponse({ status: 200, fields: [] }));
        const response = await fetchOverStream(client, GET);
        assertEquals(await collect(response.body!), content, told);
        await sent;
      }
      { // a request
        const { client, server } = streamPair();
        const got = Promise.withResolvers<Uint8Array>();
        const served = serveHttpStream(server, (request) => {
          collect(request.body!).then(got.resolve, got.reject);
          return got.promise.then(() => new Response("done"));
        });
        await send(client, encodeHttpRequest(head));
        assertEquals(await got.promise, content, told);
        await served;
      }
      { // without a stream
        const { client, server } = streamPair();
        const sent = send(server, encodeHttpResponse({ status: 200, fields: [] }));
        const { body } = await exchangeOverStream(client, GET);
        const got: Uint8Array[] = [];
        for (let chunk; (chunk = await body.read()) !== null;) got.push(transferred(chunk));
        assertEquals(concat(...got), content, told);
        assertEquals(await body.trailers, [["x-end", "1"]]);
        await sent;
      }
    }
  }
});

Deno.test("a control character in a field's value is a blank in the Response, which every server can pass on", async () => {
  const { client, server } = streamPair();
  await server.write(
    encodeHttpResponse({ status: 200, fields: [["x-a", "b\x01c\td\x7f"], ["x-plain", "b c\td"]] }, {
      content: utf8("whole"),
    }),
    { end: true },
  );
  const response = await fetchOverStream(client, GET);
  assertEquals([response.headers.get("x-a"), response.headers.get("x-plain")], ["b c\td", "b c\td"]);
  assertEquals(await response.text(), "whole");
});

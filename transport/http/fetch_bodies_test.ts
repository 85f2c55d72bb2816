// The bodies of fetch handlers' requests and responses where they take a shorter way than their streams.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat, utf8 } from "../../core/mod.ts";
import { hasStaticBody } from "./_static_body.ts";
import { streamPair } from "./_stream_pair.ts";
import { fetchOverStream, type HttpHandler, type HttpRequestParts, serveHttpStream } from "./mod.ts";

const TEXT = "a body of some length, ".repeat(5000);

/** One exchange: what the client got, and what the handler failed with. */
async function exchange(handler: HttpHandler, request: Partial<HttpRequestParts> = {}) {
  const { client, server } = streamPair();
  const errors: unknown[] = [];
  const served = serveHttpStream(server, handler, { onError: (error) => errors.push(error) });
  const response = await fetchOverStream(client, {
    method: "GET",
    scheme: "https",
    authority: "app.example",
    path: "/",
    fields: [],
    ...request,
  });
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
  const parts = { method: "GET", scheme: "https", authority: "app.example", path: "/", fields: [] };
  const response = await fetchOverStream(client, parts);
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

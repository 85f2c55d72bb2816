import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Bytes, utf8 } from "../../core/mod.ts";
import { StreamRequest, streamRequest } from "./_stream_request.ts";

const CONTENT = '{"a":"\u00fc"}';

interface Sample {
  method?: string;
  path?: string;
  /** Whether the content is still to come. @default {false} */
  streamed?: boolean;
  content?: string;
}

/** The same request twice: as handlers get it, and real from the start. */
function both({ method = "POST", path = "/a/../b?c#d", streamed = false, content = CONTENT }: Sample = {}) {
  const make = () => {
    const bytes = utf8(content);
    let stream: ReadableStream<Bytes> | undefined;
    return {
      method,
      scheme: "https",
      authority: "App.example:443",
      path,
      fields: [["accept", "text/plain"], ["cookie", "a=1"], ["cookie", "b=2"], [
        "content-type",
        "text/json",
      ]] as const,
      body: {
        complete: streamed ? undefined : bytes,
        bytes: () => Promise.resolve(bytes),
        stream: () => stream ??= new ReadableStream({ start: (c) => (c.enqueue(bytes), c.close()) }),
      },
    };
  };
  const controllers = [new AbortController(), new AbortController()] as const;
  const requests = [
    streamRequest(make(), controllers[0]),
    new StreamRequest(make(), controllers[1]),
  ] as const;
  assert(!(requests[0] instanceof StreamRequest)); // else this tests nothing
  return { requests, controllers };
}

/** What `use` comes to with each of the two. */
async function outcomes(sample: Sample, use: (request: Request) => unknown): Promise<unknown[]> {
  return await Promise.all(
    both(sample).requests.map(async (request) => {
      try {
        return { value: await use(request), bodyUsed: request.bodyUsed };
      } catch (error) {
        return { error: (error as Error).name, bodyUsed: request.bodyUsed };
      }
    }),
  );
}

const seen = async (
  request: Request,
) => [
  request.method,
  request.url,
  [...request.headers],
  request.redirect,
  request.signal.aborted,
  request.body === null,
  request.bodyUsed,
  await request.text(),
  request.bodyUsed,
];
const texts = async (request: Request) => [await request.text(), request.headers.get("x")];

const uses: Record<string, (request: Request) => unknown> = {
  "what is read of it": (r) => [
    r.method,
    r.url,
    [...r.headers],
    r.redirect,
    r.mode,
    r.credentials,
    r.cache,
    r.referrer,
    r.integrity,
    r.keepalive,
    r.body === null,
    r instanceof Request,
    Object.prototype.toString.call(r),
  ],
  "its text": (r) => r.text(),
  "its JSON": (r) => r.json(),
  "its bytes": async (r) => [...await r.bytes()],
  "its ArrayBuffer": async (r) => [...new Uint8Array(await r.arrayBuffer())],
  "its blob": async (r) => await (await r.blob()).text(),
  "its form data": async (r) => [...await r.formData()],
  "its body": (r) => new Response(r.body).text(),
  "its text twice": async (r) => [await r.text(), await r.text()],
  "its text after its body": async (r) => (r.body?.getReader(), await r.text()),
  "its body after its text": async (
    r,
  ) => (await r.text(), r.body && [r.body.locked, (await r.body.getReader().read()).done]),
  "its text after its blob": async (r) => (await r.blob(), await r.text()),
  "its bytes after its JSON": async (r) => (await r.json(), await r.bytes()),
  "a copy": (r) => texts(new Request(r)),
  "a copy with another method and fields": (r) =>
    texts(new Request(r, { method: "PUT", headers: { x: "1" } })),
  "a copy with another URL": (r) => new Request("https://other.example/", r).method,
  "a copy after its headers were changed": (r) => {
    r.headers.set("x", "1");
    r.headers.append("x", "2");
    r.headers.delete("accept");
    return texts(new Request(r));
  },
  "two copies, its headers changed between them": (r) => {
    const first = new Request(r.clone());
    r.headers.set("x", "1");
    return Promise.all([first, r.clone()].map(texts));
  },
  "a copy after its text": async (r) => (await r.text(), await texts(new Request(r))),
  "its text after a copy": async (r) => (new Request(r), await r.text()),
  "a clone, both read": async (r) => [await r.clone().text(), await r.text()],
  "a clone after its text": async (r) => (await r.text(), await r.clone().text()),
  "a clone of a clone": (r) => texts(r.clone().clone()),
  "getters called on it": (r) =>
    ["method", "url", "bodyUsed", "redirect"].map((name) => Reflect.get(Request.prototype, name, r)),
  "a Proxy": async (r) => [await seen(new Proxy(r, {})), r.bodyUsed],
  "the blob of a Proxy": async (r) => (await new Proxy(r, {}).blob()).text(),
  "a copy of a Proxy": (r) => seen(new Request(new Proxy(r, {}))),
  "a clone of a Proxy": (r) => seen(new Proxy(r, {}).clone()),
  "an object made of it": async (
    r,
  ) => [await seen(Object.create(r, { url: { value: "http://b/" } })), r.bodyUsed],
  "its URL as the key of a copy": (r) => new Request(r.url, r).headers.get("accept"),
};

const samples: Record<string, Sample> = {
  "content that is here": {},
  "content to come": { streamed: true },
  "content that is no JSON": { content: "a=1" },
  "no content": { content: "" },
  GET: { method: "GET" },
  "HEAD of *": { method: "HEAD", path: "*" },
};

for (const [what, use] of Object.entries(uses)) {
  Deno.test(`a handler's request and a real one are the same to who asks for ${what}`, async () => {
    for (const [name, sample] of Object.entries(samples)) {
      const [lazy, real] = await outcomes(sample, use);
      assertEquals(lazy, real, name);
    }
  });
}

Deno.test("a Proxy of a request answers as one of a runtime's own request does", async () => {
  for (const sample of Object.values(samples)) {
    for (const request of both(sample).requests) {
      const { method, url, headers } = request;
      const content = method === "POST" ? sample.content ?? CONTENT : "";
      const init = {
        method,
        headers,
        redirect: "manual",
        ...(content !== "" && { body: utf8(content) }),
      } as const;
      assertEquals(await seen(new Proxy(request, {})), await seen(new Proxy(new Request(url, init), {})));
    }
  }
});

Deno.test("for … in shows what a request has, and its constructor makes requests", () => {
  const names = (request: Request) => {
    const found = [];
    for (const name in request) found.push(name);
    return found.sort();
  };
  for (const request of both().requests) {
    assertEquals(names(request), names(new Request("http://a/")));
    assert(request.constructor === Request);
  }
});

Deno.test("what is read of a request is the reader's own", async () => {
  const { requests: [request] } = both();
  const { requests: [other] } = both();
  const [bytes, buffer] = [await request.bytes(), await other.arrayBuffer()];
  assertEquals(bytes.buffer.byteLength, bytes.length);
  assertEquals(new Uint8Array(buffer), bytes);
});

Deno.test("a request's headers and signal are the same object each time, before and after it became real", () => {
  const { requests: [request], controllers: [controller] } = both();
  const { headers, signal } = request;
  assert(signal === controller.signal);
  new Request(request);
  assert(request.headers === headers);
  assert(request.signal === signal);
});

Deno.test("copies, clones and fetches of a request end with its exchange", async () => {
  const { requests, controllers } = both({ method: "GET" });
  for (const [i, request] of requests.entries()) {
    const copies = [new Request(request), request.clone()];
    const server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      () => new Promise<Response>(() => {}),
    );
    try {
      const fetched = fetch(new Request(`http://127.0.0.1:${server.addr.port}/`, request));
      controllers[i]!.abort();
      await assertRejects(() => fetched, DOMException, "abort");
      for (const copy of copies) assert(copy.signal.aborted);
    } finally {
      await server.shutdown();
    }
  }
});

Deno.test("a request is refused where Request refuses it", () => {
  const body = {
    complete: new Uint8Array(),
    bytes: () => Promise.reject(),
    stream: () => new ReadableStream(),
  };
  const head = { scheme: "https", path: "/", fields: [], body };
  const { signal } = new AbortController();
  for (
    const [method, authority] of [["GET", "a b"], ["GET", "a:99999"], ["TRACE", "a"], ["G T", "a"]] as const
  ) {
    assertThrows(() => streamRequest({ ...head, method, authority }, { signal }), TypeError);
  }
  assertEquals(streamRequest({ ...head, method: "get", authority: "a" }, { signal }).method, "GET");
  assertEquals(streamRequest({ ...head, method: "propfind", authority: "a" }, { signal }).method, "propfind");
});

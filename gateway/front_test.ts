import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { within } from "../core/_deferred.ts";
import { raw } from "./_testing.ts";
import { makeCertificate } from "./_testing_tls.ts";
import { denoFront } from "./front.ts";
import { nodeFront } from "./node_front.ts";

const GET = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const bytes = (text: string) => new TextEncoder().encode(text);

/** Whether a promise settles soon. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  await within(promise.then(() => settled = true), 3000);
  return settled;
}

Deno.test("denoFront: abort() after shutdown() lets go of a client that stays, and throws nothing", async () => {
  const asked = Promise.withResolvers<void>();
  const front = denoFront(async (request) => {
    asked.resolve();
    await request.bytes().catch(() => {});
    return new Response("x");
  }, { port: 0 });
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  await conn.write(bytes("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"));
  await asked.promise;
  const closed = front.shutdown();
  front.abort();
  front.abort();
  assert(await settles(front.finished));
  await front[Symbol.asyncDispose]();
  conn.close();
  await closed; // the server itself ends with its last client
});

Deno.test("denoFront: abort() alone ends connections at once", async () => {
  const asked = Promise.withResolvers<void>();
  const front = denoFront(() => {
    asked.resolve();
    return new Promise<Response>(() => {});
  }, { port: 0 });
  const answer = raw(front.addr.port, GET);
  await asked.promise;
  front.abort();
  assert(await settles(front.finished));
  await front.shutdown();
  assertEquals(await answer, "<end>");
});

Deno.test("nodeFront with TLS: abort() ends connections that never shook hands", async () => {
  const base = await Deno.makeTempDir();
  const tls = await makeCertificate(base);
  const front = await nodeFront(() => new Response("x"), { port: 0, tls });
  const silent = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  // Who comes later is served, so that the first is in the server's hands.
  const { cert } = tls;
  const served = await Deno.connectTls({ hostname: "127.0.0.1", port: front.addr.port, caCerts: [cert] });
  await served.handshake();
  served.close();
  front.shutdown();
  front.abort();
  const ended = await settles(front.finished);
  silent.close();
  assert(ended);
  await Deno.remove(base, { recursive: true });
});

Deno.test("nodeFront shows the head of an answer before its body comes", async () => {
  const { promise: more, resolve: send } = Promise.withResolvers<void>();
  await using front = await nodeFront(
    () =>
      new Response(
        new ReadableStream<Uint8Array>({
          start: async (controller) => {
            await more;
            controller.enqueue(bytes("data: 1\n\n"));
            controller.close();
          },
        }),
        { headers: { "content-type": "text/event-stream" } },
      ),
    { port: 0 },
  );
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  await conn.write(bytes(GET));
  let seen = "";
  const buffer = new Uint8Array(4096);
  const read = async () => {
    const n = await conn.read(buffer);
    if (n !== null) seen += new TextDecoder().decode(buffer.subarray(0, n));
    return n !== null;
  };
  const first = read();
  const shown = await settles(first);
  send();
  await first;
  while (await read());
  assert(shown);
  assertStringIncludes(seen, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n");
  assert(seen.endsWith("\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"), seen);
});

Deno.test("nodeFront gives a body that is all here its length", async () => {
  for (const body of ["hello", ""]) {
    await using front = await nodeFront(() => new Response(body), { port: 0 });
    const answer = await raw(front.addr.port, GET);
    assertStringIncludes(answer, `content-length: ${body.length}\r\n`);
    assert(answer.endsWith(`\r\n\r\n${body}<end>`), answer);
  }
});

Deno.test("nodeFront leaves out a 103 that Node refuses to send, and the answer stays", async () => {
  for (const [link, status] of [["</a.css>; rel=preload", 103], ["nonsense", 200]] as const) {
    await using front = await nodeFront((_request, info) => {
      info.sendInformational?.(103, [["link", link]]);
      return new Response("x");
    }, { port: 0 });
    const answer = await raw(front.addr.port, GET);
    assertStringIncludes(answer, `HTTP/1.1 ${status} `);
    assert(answer.endsWith("\r\n\r\nx<end>"), answer);
  }
});

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { within } from "../core/_deferred.ts";
import { raw, until } from "./_testing.ts";
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
  const GET_ALONE = GET.replace("Connection: close\r\n", "");
  for (const request of [GET_ALONE, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"]) {
    const asked = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<Response>();
    const front = denoFront(async (request) => {
      asked.resolve();
      await request.bytes().catch(() => {});
      return gone.promise;
    }, { port: 0 });
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(bytes(request));
    await asked.promise;
    const closed = front.shutdown();
    front.abort();
    front.abort();
    assert(await settles(front.finished));
    await front[Symbol.asyncDispose]();
    conn.close();
    gone.resolve(new Response("x"));
    await closed; // the server itself ends with its last client
  }
});

Deno.test("denoFront: shutdown() lets uploads arrive whole, and refuses who comes meanwhile", async () => {
  const asked = Promise.withResolvers<void>();
  const front = denoFront(async (request) => {
    asked.resolve();
    return new Response(await request.text());
  }, { port: 0 });
  const { port } = front.addr;
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await conn.write(bytes("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc"));
  await asked.promise;
  const closed = front.shutdown();
  for (const request of [GET, GET.replace("GET", "POST")]) {
    const refused = await raw(port, request);
    assertStringIncludes(refused, "HTTP/1.1 503 ");
    assertStringIncludes(refused, "connection: close");
  }
  await conn.write(bytes("def"));
  const answer = await new Response(conn.readable).text();
  assertStringIncludes(answer, "HTTP/1.1 200 OK");
  assert(answer.endsWith("\r\n\r\nabcdef"), answer);
  await closed;
  await front.finished;
  await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port }), Deno.errors.ConnectionRefused);
});

Deno.test("denoFront: whileStopping answers who comes while an upload holds the shutdown up", async () => {
  const asked = Promise.withResolvers<void>();
  const front = denoFront(async (request) => {
    asked.resolve();
    return new Response(await request.text());
  }, { port: 0, whileStopping: () => new Response("as ever") });
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  await conn.write(bytes("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\na"));
  await asked.promise;
  const closed = front.shutdown();
  assert((await raw(front.addr.port, GET)).endsWith("as ever<end>"));
  await conn.write(bytes("b"));
  assert((await new Response(conn.readable).text()).endsWith("\r\n\r\nab"));
  await closed;
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

Deno.test("shutdown() lets a request finish whose body is still on its way, and abort() one that never does", async () => {
  for (const makeFront of [denoFront, nodeFront]) {
    for (const whole of [true, false]) {
      const begun = Promise.withResolvers<void>();
      let asked = 0;
      const front = await makeFront(async (request) => {
        asked++;
        if (request.body === null) return new Response("late");
        const reader = request.body.getReader();
        const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
          pull: async (controller) => {
            const { value, done } = await reader.read();
            if (done) controller.close();
            else controller.enqueue(new Uint8Array(value));
            begun.resolve();
          },
        }, { highWaterMark: 0 });
        return request.url.endsWith("/collect")
          ? new Response(await new Response(body).text())
          : new Response(body);
      }, { port: 0 });
      const conns = await Promise.all(["/collect", "/echo"].map(async (path) => {
        const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
        await conn.write(
          bytes(`POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab`),
        );
        return conn;
      }));
      await begun.promise;
      await until(() => asked === 2);
      const finished = front.shutdown();
      await new Promise((resolve) => setTimeout(resolve)); // whatever is cut, is cut now
      for (const conn of conns) {
        if (whole) await conn.write(bytes("cd"));
        else front.abort();
        let answer = "";
        const buffer = new Uint8Array(4096);
        for (;;) {
          const n = await conn.read(buffer).catch(() => null);
          if (n === null) break;
          answer += new TextDecoder().decode(buffer.subarray(0, n));
        }
        assertEquals(/^HTTP\/1.1 200 OK\r\n[^]*a[^]*b[^]*c[^]*d/.test(answer), whole, answer);
        conn.close();
      }
      assert(await settles(finished), "the front stays");
      await front.finished;
    }
  }
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

Deno.test("nodeFront with TLS: what nobody reads of a request stays with its client, and comes once it is read", async () => {
  const base = await Deno.makeTempDir();
  const tls = await makeCertificate(base);
  const length = 64 * 1024 ** 2;
  for (const method of ["POST", "GET"]) {
    const gate = Promise.withResolvers<void>();
    await using front = await nodeFront(async (request) => {
      await gate.promise;
      return new Response(`<${(await request.bytes()).length}>`);
    }, { port: 0, tls, lingerBytes: 2 * length, lingerTimeoutMs: 60_000 });
    using conn = await Deno.connectTls({
      hostname: "127.0.0.1",
      port: front.addr.port,
      caCerts: [tls.cert],
    });
    await writeAll(conn, bytes(`${method} / HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`));
    let sent = 0;
    const part = new Uint8Array(65_536);
    const sending = (async () => {
      for (; sent < length; sent += part.length) await writeAll(conn, part);
    })();
    await within(sending, 1000);
    assert(sent < length / 2, `${sent} bytes were taken of a ${method}`);
    gate.resolve();
    // Behind it the connection goes on, also for a request whose small body nobody reads.
    await sending;
    await writeAll(conn, bytes("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"));
    await writeAll(
      conn,
      bytes("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"),
    );
    const answers = await new Response(conn.readable).text();
    assertEquals([...answers.matchAll(/<[0-9]+>/g)].map(([text]) => text), [
      method === "POST" ? `<${length}>` : "<0>",
      "<0>",
      "<3>",
    ]);
  }
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

/** Handlers that answer before the request is over, each in another way. */
const EARLY: readonly ((request: Request) => Promise<Response>)[] = [
  () => Promise.resolve(new Response("early")),
  async (request) => {
    await request.body?.cancel();
    return new Response("early");
  },
  async (request) => {
    const reader = request.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    return new Response("early");
  },
];
/** One that keeps what it has not read. */
const HOLDING = async (request: Request) => {
  await request.body?.getReader().read();
  return new Response("early");
};

/** A client with an answer and an end to read, whatever it has sent. */
async function upload(
  port: number,
  head: string,
): Promise<{ conn: Deno.Conn; answered: Promise<void>; answer: Promise<string> }> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await writeAll(conn, bytes(head));
  const answered = Promise.withResolvers<void>();
  const read = async () => {
    let all = "";
    const buffer = new Uint8Array(4096);
    for (;;) {
      const n = await conn.read(buffer).catch(() => null); // a reset is an end, too
      if (n === null) return `${all}<end>`;
      all += new TextDecoder().decode(buffer.subarray(0, n));
      if (all.endsWith("early")) answered.resolve();
    }
  };
  return { conn, answered: answered.promise, answer: read() };
}

async function writeAll(conn: Deno.Conn, data: Uint8Array): Promise<void> {
  for (let at = 0; at < data.length;) at += await conn.write(data.subarray(at));
}

const CHUNK = new Uint8Array([...bytes("10000\r\n"), ...new Uint8Array(65_536), 13, 10]);

Deno.test("nodeFront reads no more than lingerBytes of what goes on behind an answer, and no longer than lingerTimeoutMs", async () => {
  const cases = [...EARLY, HOLDING].flatMap((handler) =>
    ["POST", "GET"].flatMap((method) => [true, false].map((chunked) => ({ handler, method, chunked })))
  );
  await Promise.all(cases.map(async ({ handler, method, chunked }) => {
    await using front = await nodeFront(handler, { port: 0, lingerTimeoutMs: 500 });
    const framing = chunked ? "Transfer-Encoding: chunked" : "Content-Length: 100000000000";
    const { conn, answer } = await upload(
      front.addr.port,
      `${method} / HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`,
    );
    let sent = 0;
    const sending = (async () => {
      // What both ends' sockets hold comes on top of what is read.
      for (; sent < 64 * 1024 ** 2; sent += CHUNK.length) await writeAll(conn, CHUNK);
    })().catch(() => {}); // the end of the connection, which is what it is to see
    const ended = await settles(Promise.all([sending, answer]));
    conn.close();
    await sending;
    const told = `${method} ${framing} ${handler}`;
    assert(ended, told);
    assert(sent < 64 * 1024 ** 2, told);
    const all = await answer;
    assert(all.startsWith("HTTP/1.1 200 OK\r\n"), all);
    assert(all.endsWith("early<end>"), all);
  }));
});

Deno.test("nodeFront ends a connection whose request does not go on behind its answer", async () => {
  await Promise.all([...EARLY, HOLDING].map(async (handler) => {
    await using front = await nodeFront(handler, { port: 0, lingerTimeoutMs: 300 });
    const { conn, answer } = await upload(
      front.addr.port,
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
    );
    const ended = await settles(answer);
    conn.close();
    assert(ended, `${handler}`);
    assert((await answer).endsWith("early<end>"));
  }));
});

Deno.test("nodeFront waits no longer for the rest of a request than its connection lasts", async () => {
  for (const close of ["", "Connection: close\r\n"]) {
    await using front = await nodeFront(EARLY[0]!, { port: 0, lingerTimeoutMs: 60_000 });
    const { conn, answered, answer } = await upload(
      front.addr.port,
      `POST / HTTP/1.1\r\nHost: x\r\n${close}Content-Length: 100\r\n\r\nabc`,
    );
    await answered;
    conn.close();
    await answer;
    await front.shutdown();
  }
});

Deno.test("nodeFront drops a small rest of a request behind its answer, and the connection goes on", async () => {
  for (const handler of EARLY) {
    for (const method of ["POST", "GET"]) {
      await using front = await nodeFront(
        (request) => request.headers.has("x-next") ? new Response("next") : handler(request),
        { port: 0 },
      );
      const { conn, answer } = await upload(
        front.addr.port,
        `${method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 250000\r\n\r\nabc`,
      );
      await writeAll(conn, new Uint8Array(249_997));
      await writeAll(conn, bytes("GET / HTTP/1.1\r\nHost: x\r\nX-Next: 1\r\nConnection: close\r\n\r\n"));
      const ended = await settles(answer);
      conn.close();
      assert(ended, `${method} ${handler}`);
      const all = await answer;
      assert(all.includes("early") && all.endsWith("next<end>"), all);
    }
  }
});

Deno.test("nodeFront: a body that nobody had begun to read when its request was answered cannot be read later", async () => {
  const asked = Promise.withResolvers<Request>();
  await using front = await nodeFront((request) => {
    asked.resolve(request);
    return new Response("early");
  }, { port: 0, lingerTimeoutMs: 300 });
  const { conn, answer } = await upload(
    front.addr.port,
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
  );
  const request = await asked.promise;
  const ended = await settles(answer);
  conn.close();
  assert(ended);
  await assertRejects(() => request.bytes());
});

Deno.test("nodeFront leaves a body alone that its handler goes on reading behind the answer", async () => {
  const read = Promise.withResolvers<number>();
  await using front = await nodeFront((request) => {
    request.bytes().then((all) => read.resolve(all.length), read.reject);
    return new Response("early");
  }, { port: 0, lingerTimeoutMs: 100 });
  const { conn, answer } = await upload(
    front.addr.port,
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nConnection: keep-alive\r\n\r\n",
  );
  for (let i = 0; i < 5; i++) {
    await writeAll(conn, new Uint8Array(200_000));
    await new Promise((resolve) => setTimeout(resolve, 50)); // longer in all than the time for what nobody reads
  }
  assertEquals(await read.promise, 1_000_000);
  conn.close();
  await answer;
});

Deno.test("nodeFront begins the requests of a connection one after another, and keeps few that are sent ahead", async () => {
  let running = 0;
  let most = 0;
  let begun = 0;
  let cancelled = 0;
  await using front = await nodeFront(async (request) => {
    begun++;
    most = Math.max(most, ++running);
    if (request.url.endsWith("/hold")) {
      return new Response(
        new ReadableStream({
          pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
          cancel: () => {
            running--;
            cancelled++;
          },
        }),
      );
    }
    const { length } = await request.bytes();
    running--;
    return new Response(`<${length}>`);
  }, { port: 0 });
  const requests = Array.from(
    { length: 100 },
    (_, i) =>
      i % 2 === 0
        ? "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        : `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${i * 10}\r\n\r\n${"x".repeat(i * 10)}`,
  );
  const answers = await raw(front.addr.port, requests.join("") + GET);
  assertEquals(
    [...answers.matchAll(/<([0-9]+)>/g)].map((match) => Number(match[1])),
    [...requests.map((_, i) => i % 2 === 0 ? 0 : i * 10), 0],
  );
  assertEquals([begun, most, running], [101, 1, 0]);
  for (const count of [10, 1000]) { // the one client goes, the other is sent away
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(bytes("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n".repeat(count)));
    if (count === 10) {
      await until(() => running === 1);
      conn.close();
    }
    await until(() => cancelled === (count === 10 ? 1 : 2));
  }
  assertEquals([begun, most, running, cancelled], [103, 1, 0, 2]);
});

Deno.test("nodeFront ends a connection whose client does not read its answer, whatever the handler", async () => {
  for (const length of [2, 300]) { // what is left is in the front's hands, or still to come
    let left = length;
    let ended = 0;
    await using front = await nodeFront(() => {
      return new Response(
        new ReadableStream({
          pull: (controller) => {
            controller.enqueue(new Uint8Array(length === 2 ? 32 * 2 ** 20 : 65_536));
            if (--left === 0) controller.close();
          },
          cancel: () => {
            ended++;
          },
        }, { highWaterMark: 0 }),
      );
    }, { port: 0, writeTimeoutMs: 100 });
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(bytes(GET));
    await until(() => left < length);
    assert(await settles(front.shutdown()), `an answer of ${length} chunks is still under way`);
    assertEquals(ended, left > 0 ? 1 : 0);
  }
});

Deno.test("nodeFront ends a connection whose client goes on with a request that was answered long ago", async () => {
  await using front = await nodeFront(() => new Response("no"), { port: 0, lingerTimeoutMs: 300 });
  for (const head of ["Content-Length: 1000", "Transfer-Encoding: chunked"]) {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(bytes(`POST / HTTP/1.1\r\nHost: x\r\n${head}\r\n\r\n`));
    const chunk = bytes(head.startsWith("C") ? "x" : "1\r\nx\r\n");
    let open = true;
    const trickling = (async () => {
      while (open) {
        await conn.write(chunk);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })().catch(() => {});
    const end = (async () => {
      const buffer = new Uint8Array(4096);
      while (await conn.read(buffer) !== null);
    })().catch(() => {});
    const ended = await settles(end);
    open = false;
    await trickling;
    assert(ended, head);
    await end;
  }
});

Deno.test("nodeFront lets go of a body whose head Node refuses to send", async () => {
  for (const method of ["GET", "HEAD"]) {
    const { promise: cancelled, resolve: cancel } = Promise.withResolvers<void>();
    await using front = await nodeFront(
      () => new Response(new ReadableStream({ cancel: () => cancel() }), { headers: { "x-field": "\x01" } }),
      { port: 0 },
    );
    assertEquals(await raw(front.addr.port, GET.replace("GET", method)), "<end>");
    assert(await settles(cancelled), method);
  }
});

Deno.test("nodeFront leaves out trailers that Node refuses to send, and the answer stays", async () => {
  await using front = await nodeFront((_request, info) => {
    info.setTrailers?.([["x-one", "\x01"], ["x-two", "2"]]);
    return new Response(
      new ReadableStream({
        start: async (controller) => {
          controller.enqueue(bytes("x"));
          await Promise.resolve();
          controller.close();
        },
      }),
      { headers: { trailer: "x-one, x-two" } },
    );
  }, { port: 0 });
  const answer = await raw(front.addr.port, GET);
  assert(answer.endsWith("\r\n\r\n1\r\nx\r\n0\r\nx-two: 2\r\n\r\n<end>"), answer);
});

Deno.test("nodeFront with TLS gives a handshake the time of a head", async () => {
  const base = await Deno.makeTempDir();
  const tls = await makeCertificate(base);
  await using front = await nodeFront(() => new Response("x"), { port: 0, tls, headersTimeoutMs: 300 });
  for (const begun of [[], [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]]) { // nothing; the first bytes of a ClientHello
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    if (begun.length > 0) await conn.write(Uint8Array.from(begun));
    const end = conn.read(new Uint8Array(64)).catch(() => null);
    const ended = await settles(end);
    if (!ended) conn.close();
    assertEquals([ended, await end], [true, null]);
  }
  await Deno.remove(base, { recursive: true });
});

Deno.test("nodeFront announces trailers only where it can send them, and the answer comes all the same", async () => {
  for (
    const [method, version, fields, body] of [
      ["GET", "1.0", {}, "x"],
      ["GET", "1.1", { "content-length": "1" }, "x"],
      ["HEAD", "1.1", {}, "x"],
      ["HEAD", "1.1", {}, null],
      ["GET", "1.1", {}, null],
    ] as const
  ) {
    await using front = await nodeFront((_request, info) => {
      info.setTrailers?.([["x-end", "1"]]);
      return new Response(body, { headers: { ...fields, trailer: "x-end" } });
    }, { port: 0 });
    const answer = await raw(front.addr.port, GET.replace("GET", method).replace("1.1", version));
    assertStringIncludes(answer, "HTTP/1.1 200 OK\r\n");
    assert(!/trailer|x-end/i.test(answer), answer);
    assert(answer.endsWith(`\r\n\r\n${method === "GET" ? body ?? "" : ""}<end>`), answer);
  }
});

Deno.test("nodeFront sends the fields of a 103 whatever their names", async () => {
  await using front = await nodeFront((_request, info) => {
    const fields = [["link", "</a.css>; rel=preload"], ["constructor", "1"], ["__proto__", "2"], [
      "x-a",
      "\x01",
    ]];
    info.sendInformational?.(103, fields.map(([name, value]) => [name!, value!]));
    return new Response("x");
  }, { port: 0 });
  const [hints] = (await raw(front.addr.port, GET)).split("\r\n\r\n", 1);
  assertEquals(hints!.toLowerCase().split("\r\n").slice(1), [
    "link: </a.css>; rel=preload",
    "constructor: 1",
    "__proto__: 2",
  ]);
});

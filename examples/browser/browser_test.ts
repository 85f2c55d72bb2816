/**
 * The page, its site and what lies behind it. Chromium is a guest: where it or Playwright is absent, the test that
 * needs it says so and passes.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { fromHex } from "@betanet/htx/core";
import {
  generateTicketKey,
  makeTicket,
  TICKET_POLICY_HEADER,
  TicketClient,
  TicketPolicy,
} from "@betanet/htx/tickets";
import { connect, dialWebSocket } from "@betanet/htx/transport";
import { assertOneLine, assertStopped, Example, run } from "../_testing.ts";
import type { FileSeen, Seen } from "./_chromium.ts";
import { contentDigest, FILE_LENGTH, FILE_SHA256, fileStream } from "./sample.ts";

const SCRIPT = "browser/serve.ts";
const PERMISSIONS = ["-N", "-R=examples/browser", "--allow-run=deno"];
const LONG = Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
  Deno.env.get("HTX_LONG") === "1";

/** A running server of the page. */
interface Running extends AsyncDisposable {
  readonly example: Example;
  /** Without the slash at its end. */
  readonly url: string;
  readonly serverKey: Uint8Array;
  readonly ticketKey: { readonly publicKey: Uint8Array; readonly keyId: Uint8Array };
}

async function start(): Promise<Running> {
  const example = Example.start(SCRIPT, PERMISSIONS, ["--port", "0"]);
  return {
    example,
    url: await example.find(/^page on (http:\/\/127\.0\.0\.1:[0-9]+)\/$/m),
    serverKey: fromHex(await example.find(/^server_pub=([0-9a-f]{64})$/m)),
    ticketKey: {
      publicKey: fromHex(await example.find(/^ticket_pub=([0-9a-f]{64})$/m)),
      keyId: fromHex(await example.find(/^ticket_key_id=([0-9a-f]{16})$/m)),
    },
    [Symbol.asyncDispose]: () => example[Symbol.asyncDispose](),
  };
}

/** What a server answers to these bytes, its date aside: head and body, one character for each byte. */
async function raw(url: string, request: string): Promise<string> {
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  await conn.write(new TextEncoder().encode(request));
  let text = "";
  for (const buffer = new Uint8Array(65_536);;) {
    const length = await conn.read(buffer);
    if (length === null) break;
    for (const byte of buffer.subarray(0, length)) text += String.fromCharCode(byte);
    const [head, body] = splitHead(text);
    if (body !== undefined && body.length >= Number(/content-length: ([0-9]+)/.exec(head)?.[1] ?? 0)) break;
  }
  return text.replace(/\r\ndate: [^\r]+/, "");
}

function splitHead(text: string): [head: string, body?: string] {
  const end = text.indexOf("\r\n\r\n");
  return end < 0 ? [text] : [text.slice(0, end), text.slice(end + 4)];
}

function upgrade(target: string, fields = ""): string {
  return `GET ${target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n` +
    `sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n${fields}\r\n`;
}

Deno.test("serve.ts runs with the permissions that its comment names, and ends well", async () => {
  await using server = await start();
  assertStopped(await server.example.stop());
});

Deno.test("serve.ts tells its usage, and fails with one line", async () => {
  const help = await run(SCRIPT, [], ["--help"]);
  assertEquals(help.code, 0);
  assertMatch(
    help.stdout,
    /Usage: deno run -N -R=examples\/browser --allow-run=deno examples\/browser\/serve\.ts/,
  );
  assertOneLine(await run(SCRIPT, [], ["--port", "http"]), 2, /--port is "http"/);
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  assertOneLine(
    await run(SCRIPT, PERMISSIONS, ["--port", String(port)]),
    1,
    new RegExp(`port ${port} is taken`),
  );
});

Deno.test("the site serves its page under a policy that lets nothing in from elsewhere", async () => {
  await using server = await start();
  const page = await fetch(`${server.url}/`);
  const html = await page.text();
  assertEquals(page.headers.get("content-type"), "text/html; charset=utf-8");
  const policy = page.headers.get("content-security-policy") ?? "";
  assertMatch(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
  assert(!policy.includes("unsafe"));
  assertEquals(TicketPolicy.parse(page.headers.get(TICKET_POLICY_HEADER) ?? "").shares.query, 1);
  const linked = [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, url]) => url);
  assertEquals(linked, ["/icon.svg", "/style.css", "/app.js"]);
  assert(!/<style|\sstyle=|\son[a-z]+=/.test(html), "nothing inline");
  for (const name of linked) {
    const response = await fetch(`${server.url}${name}`);
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("x-content-type-options"), "nosniff");
    await response.body?.cancel();
  }
  assertStopped(await server.example.stop());
});

Deno.test("the page's script carries no more than it needs", async () => {
  await using server = await start();
  const script = await (await fetch(`${server.url}/app.js`)).text();
  const packed = await raw(
    server.url,
    "GET /app.js HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nrange: bytes=0-0\r\n\r\n",
  );
  const gzipLength = Number(/content-length: ([0-9]+)/.exec(packed)?.[1]);
  console.log(`the page's script: ${script.length} bytes, ${gzipLength} compressed`);
  assert(script.length < 224 * 1024, `${script.length} bytes`);
  assert(gzipLength > 0 && gzipLength < 80 * 1024, `${gzipLength} bytes compressed`);
  assert(!script.includes("AGFzbQ"), "no WebAssembly");
  for (const word of ["blockstore", "redis", "valibot", "node:net", "node:tls", "node:http"]) {
    assert(!script.includes(word), word);
  }
  assertStopped(await server.example.stop());
});

Deno.test("without a good ticket the WebSocket endpoint is a page that is not there (e-14, e-29)", async () => {
  await using server = await start();
  const { url, ticketKey } = server;
  const nowhere = await raw(url, "GET /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
  assertMatch(nowhere, /^HTTP\/1\.1 404 Not Found\r\n/);
  const ticket = () => makeTicket(ticketKey);
  const spent = ticket();
  assertMatch(await raw(url, upgrade(`/live?bn1=${spent}`)), /^HTTP\/1\.1 101 /);
  const probes: Record<string, string> = {
    "a plain request": "GET /live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "no ticket": upgrade("/live"),
    "an empty ticket": upgrade("/live?bn1="),
    "garbage": upgrade("/live?bn1=AAAA"),
    "a ticket of another key": upgrade(`/live?bn1=${makeTicket(generateTicketKey())}`),
    "a ticket of another key with this id": upgrade(
      `/live?bn1=${makeTicket({ publicKey: generateTicketKey().publicKey, keyId: ticketKey.keyId })}`,
    ),
    "a ticket that was spent": upgrade(`/live?bn1=${spent}`),
    "two tickets": upgrade(`/live?bn1=${ticket()}&bn1=${ticket()}`),
    "a ticket in a cookie, where the policy has none": upgrade("/live", `cookie: __Host-bn1=${ticket()}\r\n`),
    "a ticket at another path": upgrade(`/nowhere?bn1=${ticket()}`),
    "a ticket without an upgrade": `GET /live?bn1=${ticket()} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`,
  };
  for (const [what, request] of Object.entries(probes)) assertEquals(await raw(url, request), nowhere, what);
  assertStopped(await server.example.stop());
});

Deno.test("the resources behind the tunnel answer, with the digests that they tell", async () => {
  await using server = await start();
  const tickets = new TicketClient(server.ticketKey, { carrier: "query" });
  const endpoint = `${server.url.replace("http:", "ws:")}/live`;
  {
    await using client = await connect(
      ({ signal }) => dialWebSocket(tickets.addToUrl(endpoint), { signal }),
      {
        remoteStatic: server.serverKey,
      },
    );
    for (const connection of client.connections) assert(connection.handshake.hybrid);
    const hello = await (await client.fetch("/hello")).json();
    assertEquals(hello.carrier, "websocket");
    assertEquals((await client.fetch("/nowhere")).status, 404);
    assertEquals((await client.fetch("/file?bytes=0")).status, 400);
    const file = await client.fetch("/file?bytes=100001");
    const digest = file.headers.get("content-digest");
    const bytes = new Uint8Array(await file.arrayBuffer());
    assertEquals(bytes.length, 100_001);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    assertEquals(digest, contentDigest(sha256));
    assertEquals(await (await client.fetch("/upload", { method: "POST", body: bytes })).json(), {
      bytes: 100_001,
      sha256,
    });
    const whole = await client.fetch("/file");
    assertEquals(whole.headers.get("content-digest"), contentDigest(FILE_SHA256));
    await whole.body?.cancel();
    const counter = (await client.fetch("/counter")).body!.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await counter.read()).value, 'data: {"count":0}\n\n');
    assertEquals((await counter.read()).value, 'data: {"count":1}\n\n');
    await counter.cancel();
  }
  assertStopped(await server.example.stop());
});

Deno.test("serve.ts says goodbye to who is connected, and ends what would go on for ever", async () => {
  await using server = await start();
  const tickets = new TicketClient(server.ticketKey, { carrier: "query" });
  const endpoint = `${server.url.replace("http:", "ws:")}/live`;
  await using client = await connect(({ signal }) => dialWebSocket(tickets.addToUrl(endpoint), { signal }), {
    remoteStatic: server.serverKey,
  });
  const [connection] = client.connections;
  const counter = await client.fetch("/counter");
  const [closed, text, outcome] = await Promise.all([
    connection!.closed,
    counter.text(),
    server.example.stop(),
  ]);
  assertEquals([closed.code, closed.remote], ["NO_ERROR", true]);
  assertMatch(text, /^(?:data: \{"count":[0-9]+\}\n\n)+$/);
  assertStopped(outcome);
});

Deno.test("fileStream() gives the file whose SHA-256 is known", async () => {
  // The digest in sample.ts was computed with `openssl dgst -sha256`.
  const hash = createHash("sha256");
  let length = 0;
  for await (const chunk of fileStream(FILE_LENGTH)) {
    length += chunk.length;
    hash.update(chunk);
  }
  assertEquals(length, FILE_LENGTH);
  assertEquals(hash.digest("hex"), FILE_SHA256);
});

Deno.test("in Chromium: fetches, a hybrid handshake, a file both ways, and a broken connection that mends itself", async (t) => {
  await using first = await start();
  await using second = await start();
  const size = LONG ? FILE_LENGTH : FILE_LENGTH / 16;
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: [
      "run",
      "-A",
      "--no-lock",
      "--quiet",
      "examples/browser/_chromium.ts",
      first.url,
      second.url,
      String(size),
    ],
    cwd: new URL("../..", import.meta.url).pathname,
    env: { NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stderr);
  if (code === 77) {
    console.log(`SKIPPED, the page was not tried in a browser: ${said.trim()}`);
    return;
  }
  assertEquals(code, 0, said);
  const seen: Seen = JSON.parse(new TextDecoder().decode(stdout));

  await t.step("the page loads and fetches through HTX", () => {
    assertEquals(seen.title, "HTX in a browser tab");
    assertEquals(seen.state, "Connected");
    assertMatch(seen.serverKey, /^[0-9a-f]{64}$/);
    assertEquals(fromHex(seen.serverKey), first.serverKey);
    const hello = JSON.parse(seen.hello);
    assertEquals([hello.carrier, hello.yourKey], ["websocket", seen.ownKey]);
    assertMatch(seen.nowhere, /^404 · application\/problem\+json/);
    assert(seen.counter[1] > seen.counter[0]);
    assertMatch(seen.roundTrip, /^[0-9.]+ ms$/);
  });
  await t.step("the hybrid handshake is shown", () => {
    assertEquals(seen.handshake, "Hybrid: X25519 with ML-KEM-768");
    assertMatch(seen.protocol, /^Noise_XKhfs_25519\+MLKEM768_/);
  });
  await t.step(
    "a file arrives with the same SHA-256, both ways, with progress and in bounded memory",
    async () => {
      const sha256 = createHash("sha256");
      for await (const chunk of fileStream(size)) sha256.update(chunk);
      const expected = sha256.digest("hex");
      const assertMoved = (file: FileSeen, digest: string) => {
        assertEquals([file.result, file.here, file.there], ["same", digest, digest]);
        assertEquals(file.verdict, "✓ The same at both ends");
        assertEquals(file.progress.at(-1), 1);
        assertEquals(file.progress, file.progress.toSorted((a, b) => a - b));
      };
      assertMoved(seen.received, expected);
      assertMoved(seen.sent, expected);
      // FIPS 180-2, appendix B.1: "abc"
      assertMoved(seen.ownFile, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
      if (LONG) {
        assert(seen.received.progress.length > 3);
        assert(seen.rekeys >= 10, `${seen.rekeys} rekeys`); // one for every 8 MiB, in both directions
      }
      const [before, most] = seen.heap;
      console.log(`heap of the page: ${before} bytes, at most ${most} while ${2 * size} bytes passed`);
      assert(most - before < 96 * 1024 ** 2, `the heap grew from ${before} to ${most}`);
    },
  );
  await t.step("a connection that breaks shows an error, and comes back by itself", () => {
    assertEquals(seen.cut.state, "Not connected");
    assertMatch(seen.cut.alert, /^Connection lost: The connection broke off\.$/);
    assertMatch(seen.cut.transfer, /^✗ The connection broke off\. \(TRUNCATED/);
    assertMatch(seen.again.hello, /hello from the other end/);
    assertMatch(seen.again.connection, /^connection 2,/);
    assert(seen.again.alertHidden);
    assertMatch(seen.button.connection, /^connection 4,/);
    assertMatch(seen.button.log, /CLOSED: Connection was aborted/);
  });
  await t.step("a server that started anew is found again, and its new keys are spoken of", () => {
    assertNotEquals(seen.replaced.serverKey, seen.serverKey);
    assertEquals(fromHex(seen.replaced.serverKey), second.serverKey);
    assertMatch(seen.replaced.log, /The server has started anew, with other keys/);
  });
  await t.step("nothing was complained of, and nothing loaded from elsewhere", () => {
    assertEquals(seen.complaints, []);
    assertEquals(seen.loaded.toSorted(), [
      "/",
      "/app.js",
      "/config.json",
      "/icon.svg",
      "/live",
      "/style.css",
    ]);
  });
  assertStopped(await first.example.stop());
  assertStopped(await second.example.stop());
});

import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { cidOf, multihashHex } from "@betanet/htx/bitswap";
import { assertOneLine, assertStopped, curl, Example, refuses, run } from "./_testing.ts";

const DIR = ["-N", "-R", "-W"];
const HELLO = cidOf(new TextEncoder().encode("hello")).toString();

Deno.test("cas_http.ts stores what curl puts, and gives it back as a block and as a CAR", async () => {
  await using store = Example.start("cas_http.ts", ["-N"], ["--port", "0"]);
  const url = await store.find(/store on (http:\S+)\//);
  assertEquals(await curl("-X", "PUT", "--data-binary", "hello", url), HELLO);
  assertEquals(await curl("-X", "POST", "--data-binary", "hello", url), HELLO);
  assertEquals(await curl(`${url}/ipfs/${HELLO}?format=raw`), "hello");
  const hex = multihashHex(cidOf(new TextEncoder().encode("hello")));
  assertEquals(await curl("-X", "PUT", "--data-binary", "hello", `${url}/?cid=multihash`), hex);
  assertEquals(await curl("-H", "accept: application/vnd.ipld.raw", `${url}/ipfs/${hex}`), "hello");
  const head = await curl("-I", `${url}/ipfs/${HELLO}?format=car`);
  assertMatch(head, /^HTTP\/1\.1 200/);
  assertMatch(head, /content-type: application\/vnd\.ipld\.car; version=1; order=dfs; dups=n\r/);
  const status = (...args: string[]): Promise<string> =>
    curl("-o", "/dev/null", "-w", "%{http_code}", ...args);
  const absent = cidOf(new TextEncoder().encode("absent"));
  assertEquals(await status(`${url}/ipfs/${absent}?format=raw`), "404");
  assertEquals(await status(`${url}/ipfs/nonsense?format=raw`), "400");
  assertEquals(await status("-H", "accept: text/html", `${url}/ipfs/${HELLO}`), "406");
  assertStopped(await store.stop());
});

Deno.test("cas_http.ts stores what its first comment has curl send, and HEAD on a CAR claims no length", async () => {
  await using store = Example.start("cas_http.ts", ["-N"], ["--port", "0"]);
  const url = await store.find(/store on (http:\S+)\//);
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(file, "hello");
    assertEquals(await curl("-T", file, `${url}/`), HELLO);
  } finally {
    await Deno.remove(file);
  }
  assertNotMatch(await curl("-I", `${url}/ipfs/${HELLO}?format=car`), /content-length/i);
  assertStopped(await store.stop());
});

Deno.test("cas_http.ts takes an upload that is under way at Ctrl-C to its end", async () => {
  await using store = Example.start("cas_http.ts", ["-N"], ["--port", "0"]);
  const url = await store.find(/store on (http:\S+)\//);
  const bytes = (text: string) => new TextEncoder().encode(text);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const head =
    "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
  await conn.write(bytes(head));
  await conn.read(new Uint8Array(1024)); // 100 Continue: the store has asked for the body
  await conn.write(bytes("he"));
  const stopped = store.stop();
  await refuses(url);
  await conn.write(bytes("llo"));
  assertMatch(await new Response(conn.readable).text(), new RegExp(`^HTTP/1\\.1 201 [^]*${HELLO}`));
  assertStopped(await stopped);
});

Deno.test("cas_http.ts keeps its blocks in a directory when told to", async () => {
  const dir = await Deno.makeTempDir();
  try {
    for (const put of [true, false]) {
      await using store = Example.start("cas_http.ts", DIR, ["--port", "0", "--dir", dir]);
      const url = await store.find(/store on (http:\S+)\//);
      if (put) assertEquals(await curl("-X", "PUT", "--data-binary", "hello", url), HELLO);
      assertEquals(await curl(`${url}/ipfs/${HELLO}?format=raw`), "hello");
      assertStopped(await store.stop("SIGTERM"));
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("cas_http.ts explains itself, and refuses bad arguments in one line", async () => {
  assertMatch((await run("cas_http.ts", [], ["--help"])).stdout, /Usage: deno run -N/);
  assertOneLine(await run("cas_http.ts", ["-N"], ["--max-body", "much"]), 2, /--max-body is much/);
  assertOneLine(await run("cas_http.ts", ["-N"], ["--port", "x"]), 2, /--port is "x"/);
});

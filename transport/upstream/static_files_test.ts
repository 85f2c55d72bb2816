// Files as a fetch handler: what is served, what is not, and what of it.

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { streamPair } from "../http/_stream_pair.ts";
import { exchangeOverStream, serveHttpStream } from "../http/mod.ts";
import { staticFiles, type StaticFilesOptions } from "./static_files.ts";

const OLD = new Date("2025-03-04T05:06:07.890Z");
const OLD_DATE = "Tue, 04 Mar 2025 05:06:07 GMT";

interface Site extends Disposable {
  readonly root: string;
  get(path: string, headers?: HeadersInit, method?: string): Promise<Response>;
}

/** A folder with a site in it, beside a folder with secrets. */
function site(options: StaticFilesOptions = {}): Site {
  const base = Deno.makeTempDirSync({ prefix: "htx-static-" });
  const root = `${base}/site`;
  Deno.mkdirSync(`${root}/sub dir`, { recursive: true });
  Deno.mkdirSync(`${root}/.git`);
  Deno.mkdirSync(`${root}/empty`);
  Deno.mkdirSync(`${base}/site-private`);
  const files: Record<string, string> = {
    "index.html": "<p>root",
    "a.txt": "0123456789",
    "b.unknown": "?",
    "none": "",
    "%2e%2e": "percent",
    "tilde~.css": "a{}",
    "sub dir/index.html": "<p>sub",
    "sub dir/ü.json": "{}",
    ".hidden": "secret",
    ".git/config": "secret",
    "../site-private/k": "secret",
    "../secret": "secret",
  };
  for (const [name, content] of Object.entries(files)) {
    Deno.writeTextFileSync(`${root}/${name}`, content);
    Deno.utimeSync(`${root}/${name}`, OLD, OLD);
  }
  link("../secret", `${root}/out`);
  link("../site-private", `${root}/outdir`);
  link("a.txt", `${root}/in`);
  link("b.unknown", `${root}/in.css`);
  link("loop", `${root}/loop`);
  link(".hidden", `${root}/unhidden`);
  const handler = staticFiles(root, options);
  return {
    root,
    get: (path, headers = {}, method = "GET") =>
      handler(new Request(`http://site.example${path}`, { headers, method })),
    [Symbol.dispose]: () => Deno.removeSync(base, { recursive: true }),
  };
}

/** A symbolic link. `Deno.symlink` asks for permissions without bounds, which the tests do not have. */
function link(target: string, path: string): void {
  const { success } = new Deno.Command("ln", { args: ["-s", target, path] }).outputSync();
  if (!success) throw new Error(`Cannot link ${path}`);
}

async function status(response: Promise<Response>): Promise<number> {
  const { status, body } = await response;
  await body?.cancel();
  return status;
}

Deno.test("staticFiles() serves files with their type, length, tag and date", async () => {
  using files = site({ cacheControl: "max-age=60", contentTypes: { unknown: "text/x-own" } });
  const response = await files.get("/a.txt?query#fragment");
  assertEquals(response.status, 200);
  assertEquals(await response.text(), "0123456789");
  assertEquals(Object.fromEntries(response.headers), {
    "accept-ranges": "bytes",
    "cache-control": "max-age=60",
    "content-length": "10",
    "content-type": "text/plain; charset=utf-8",
    "etag": `"a-${OLD.getTime().toString(16)}"`,
    "last-modified": OLD_DATE,
    "x-content-type-options": "nosniff",
  });
  const type = async (path: string) => {
    const { headers, body } = await files.get(path);
    await body?.cancel();
    return headers.get("content-type");
  };
  assertEquals(await type("/b.unknown"), "text/x-own");
  assertEquals(await type("/none"), "application/octet-stream");
  assertEquals(await type("/sub%20dir/%C3%BC.json"), "application/json");
  assertEquals(await type("/tilde~.css"), "text/css; charset=utf-8");
  assertEquals(await type("/in"), "text/plain; charset=utf-8");
  assertEquals(await type("/in.css"), "text/css; charset=utf-8", "by the name it is asked for by");
  assertEquals(await (await files.get("/in")).text(), "0123456789", "a link within the folder");
  assertEquals((await files.get("/none")).headers.get("content-length"), "0");
});

Deno.test("staticFiles() shows index files and redirects a folder to its slash", async () => {
  using files = site();
  assertEquals(await (await files.get("/")).text(), "<p>root");
  assertEquals(await (await files.get("/sub%20dir/")).text(), "<p>sub");
  const redirect = await files.get("/sub%20dir?x=1");
  assertEquals([redirect.status, redirect.headers.get("location")], [308, "/sub%20dir/?x=1"]);
  await redirect.body?.cancel();
  assertEquals(await status(files.get("/empty/")), 404);
  assertEquals(await status(files.get("/a.txt/")), 404);
  assertEquals(await status(files.get("//sub%20dir")), 404, "no redirect to another host");
  using bare = site({ index: false });
  assertEquals(await status(bare.get("/")), 404);
});

Deno.test("staticFiles() serves nothing that is not below its folder, or is hidden (e-15)", async () => {
  using files = site();
  const up = [
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "..%00",
    "..;",
    "..%20",
    "...",
    "%c0%ae%c0%ae",
    "..%5c",
  ];
  const tails = ["secret", "site-private/k", "site/../secret", "site/a.txt", "etc/passwd"];
  const separators = ["/", "%2f", "%2F", "\\", "%5c", "%5C", "//", "/./", "/%2e/", "%252f"];
  const paths: string[] = [];
  for (const dots of up) {
    for (const separator of separators) {
      for (const tail of tails) {
        paths.push(`/${dots}${separator}${tail}`, `/empty/${dots}${separator}${dots}${separator}${tail}`);
      }
    }
  }
  paths.push(
    "/out",
    "/outdir/k",
    "/outdir/",
    "/outdir",
    "/loop",
    "/unhidden",
    "/.hidden",
    "/%2ehidden",
    "/.git/config",
    "/.git/",
    "/.git",
    "/empty/../.hidden",
    "/a.txt%00",
    "/a.txt%00.html",
    "/%00",
    "/a.txt.",
    "/a.txt%20",
    "/a.txt::$DATA",
    "/A.TXT",
    "/INDEX.HTML",
    "/%",
    "/%zz",
    "/%ff",
    "/%e0%80%af",
    "//a.txt",
    "/empty//../a.txt/",
    `/${"a".repeat(300)}`,
    `/${"a".repeat(5000)}`,
    `/${"a/".repeat(3000)}`,
    "/" + "%2e%2e%2f".repeat(200) + "etc/passwd",
    "/file:///etc/passwd",
    "/~root/",
    "/CON",
  );
  for (const path of paths) {
    const response = await files.get(path);
    const body = await response.text();
    // A parser may have resolved it to a file that is served; never to another.
    assert(
      response.status === 404 || body === "0123456789" || body === "<p>root",
      `${path}: ${response.status} ${body}`,
    );
    assert(!body.includes("secret") && !body.includes("root:"), path);
    if (response.status === 404) assertEquals(body, "404 Not Found\n");
  }
});

Deno.test("staticFiles() takes raw paths off the wire without surprise (e-15)", async () => {
  using files = site();
  const handler = staticFiles(files.root);
  const paths = [
    "/../secret",
    "/..\\secret",
    "/%2e%2e/secret",
    "/a/../../secret",
    "/\\..\\..\\secret",
    "/..%2fsecret",
  ];
  for (const path of paths) {
    const { client, server } = streamPair();
    const served = serveHttpStream(server, handler);
    const response = await exchangeOverStream(client, {
      method: "GET",
      scheme: "http",
      authority: "a",
      path,
      fields: [],
    });
    assertEquals(response.status, 404, path);
    await response.body.bytes();
    await served;
  }
});

Deno.test("staticFiles() takes GET and HEAD alone", async () => {
  using files = site();
  const head = await files.get("/a.txt", {}, "HEAD");
  assertEquals([head.status, head.body, head.headers.get("content-length")], [200, null, "10"]);
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"]) {
    const response = await files.get("/a.txt", {}, method);
    assertEquals([response.status, response.headers.get("allow")], [405, "GET, HEAD"]);
    await response.body?.cancel();
  }
});

Deno.test("staticFiles() answers conditional requests in the order of RFC 9110 §13.2.2", async () => {
  using files = site();
  const tag = `"a-${OLD.getTime().toString(16)}"`;
  const before = "Tue, 04 Mar 2025 05:06:06 GMT", after = "Tue, 04 Mar 2025 05:06:08 GMT";
  const cases: [Record<string, string>, number][] = [
    [{ "if-none-match": tag }, 304],
    [{ "if-none-match": `W/${tag}` }, 304],
    [{ "if-none-match": `"x", ${tag}` }, 304],
    [{ "if-none-match": "*" }, 304],
    [{ "if-none-match": `"x"` }, 200],
    [{ "if-none-match": "garbage" }, 200],
    [{ "if-none-match": `"x"`, "if-modified-since": after }, 200],
    [{ "if-modified-since": OLD_DATE }, 304],
    [{ "if-modified-since": after }, 304],
    [{ "if-modified-since": before }, 200],
    [{ "if-modified-since": "2030-01-01" }, 200],
    [{ "if-modified-since": "yesterday" }, 200],
    // RFC 9110 §5.6.7: "A recipient … MUST accept all three HTTP-date formats".
    [{ "if-modified-since": "Tuesday, 04-Mar-25 05:06:07 GMT" }, 304],
    [{ "if-modified-since": "Tuesday, 04-Mar-25 05:06:06 GMT" }, 200],
    [{ "if-modified-since": "Tue Mar  4 05:06:07 2025" }, 304],
    [{ "if-modified-since": "Tue Mar 04 05:06:06 2025" }, 200],
    [{ "if-unmodified-since": "Friday, 04-Mar-99 05:06:07 GMT" }, 412], // 1999, not 2099
    [{ "if-unmodified-since": "Friday, 04-Mar-50 05:06:07 GMT" }, 200], // 2050, not 1950
    [{ "if-unmodified-since": "Tue Mar  4 05:06:06 2025" }, 412],
    [{ "if-unmodified-since": "Tue Mar 4 05:06:06 2025" }, 200],
    [{ "if-match": tag }, 200],
    [{ "if-match": "*" }, 200],
    [{ "if-match": `W/${tag}` }, 412],
    [{ "if-match": `"x"` }, 412],
    [{ "if-match": tag, "if-unmodified-since": before }, 200],
    [{ "if-match": tag, "if-none-match": tag }, 304],
    [{ "if-unmodified-since": before }, 412],
    [{ "if-unmodified-since": OLD_DATE }, 200],
  ];
  for (const [headers, expected] of cases) {
    for (const method of ["GET", "HEAD"]) {
      const response = await files.get("/a.txt", headers, method);
      assertEquals(response.status, expected, JSON.stringify(headers));
      if (expected === 304) {
        assertEquals([response.body, response.headers.get("etag")], [null, tag]);
      }
      await response.body?.cancel();
    }
  }
});

Deno.test("staticFiles() serves one range, and the whole where RFC 9110 §14 lets it", async () => {
  using files = site();
  const tag = `"a-${OLD.getTime().toString(16)}"`;
  const cases: [Record<string, string>, number, string, string | null][] = [
    [{ range: "bytes=0-3" }, 206, "0123", "bytes 0-3/10"],
    [{ range: "bytes=3-3" }, 206, "3", "bytes 3-3/10"],
    [{ range: "bytes=8-" }, 206, "89", "bytes 8-9/10"],
    [{ range: "bytes=8-99999999999999999999" }, 206, "89", "bytes 8-9/10"],
    [{ range: "bytes=-2" }, 206, "89", "bytes 8-9/10"],
    [{ range: "bytes=-99" }, 206, "0123456789", "bytes 0-9/10"],
    [{ range: "BYTES=0-0" }, 206, "0", "bytes 0-0/10"],
    [{ range: "bytes=10-" }, 416, "416 Range Not Satisfiable\n", "bytes */10"],
    [{ range: "bytes=99999999999999999999-" }, 416, "416 Range Not Satisfiable\n", "bytes */10"],
    [{ range: "bytes=-0" }, 416, "416 Range Not Satisfiable\n", "bytes */10"],
    [{ range: "bytes=5-2" }, 200, "0123456789", null],
    [{ range: "bytes=0-1,3-4" }, 200, "0123456789", null],
    [{ range: "bytes=a-b" }, 200, "0123456789", null],
    [{ range: "bytes=-" }, 200, "0123456789", null],
    [{ range: "lines=0-1" }, 200, "0123456789", null],
    [{ range: "bytes=0-3", "if-range": tag }, 206, "0123", "bytes 0-3/10"],
    [{ range: "bytes=0-3", "if-range": `W/${tag}` }, 200, "0123456789", null],
    [{ range: "bytes=0-3", "if-range": `"x"` }, 200, "0123456789", null],
    [{ range: "bytes=0-3", "if-range": OLD_DATE }, 206, "0123", "bytes 0-3/10"],
    [{ range: "bytes=0-3", "if-range": "Tue Mar  4 05:06:07 2025" }, 206, "0123", "bytes 0-3/10"],
    [{ range: "bytes=0-3", "if-range": "Tue, 04 Mar 2025 05:06:08 GMT" }, 200, "0123456789", null],
    [{ range: "bytes=0-3", "if-match": `"x"` }, 412, "412 Precondition Failed\n", null],
  ];
  for (const [headers, expected, body, contentRange] of cases) {
    const response = await files.get("/a.txt", headers);
    const what = JSON.stringify(headers);
    assertEquals([response.status, await response.text()], [expected, body], what);
    assertEquals(response.headers.get("content-range"), contentRange, what);
    if (expected === 206) assertEquals(response.headers.get("content-length"), String(body.length));
  }
  const head = await files.get("/a.txt", { range: "bytes=0-3" }, "HEAD");
  assertEquals([head.status, head.headers.get("content-length")], [200, "10"]);
  assertEquals(await status(files.get("/none", { range: "bytes=0-" })), 416);
  // RFC 9110 §14.1.2: of an empty file, the last bytes are there, all none of them; there is no `content-range` to say so.
  assertEquals(await status(files.get("/none", { range: "bytes=-5" })), 200);
  assertEquals(await status(files.get("/none", { range: "bytes=-0" })), 416);
});

Deno.test("a file that has just changed has a weak tag, which names no range", async () => {
  using files = site({ now: () => OLD.getTime() + 1000 });
  const response = await files.get("/a.txt");
  const tag = response.headers.get("etag")!;
  await response.body?.cancel();
  assertMatch(tag, /^W\/"/);
  assertEquals(await status(files.get("/a.txt", { "if-none-match": tag })), 304);
  assertEquals(await status(files.get("/a.txt", { "if-match": tag })), 412);
  assertEquals(await status(files.get("/a.txt", { range: "bytes=0-3", "if-range": tag })), 200);
  assertEquals(await status(files.get("/a.txt", { range: "bytes=0-3", "if-range": OLD_DATE })), 200);
});

Deno.test("large files are streamed as they are read, whole, in part, or not to the end", async () => {
  using files = site();
  const bytes = new Uint8Array(300_000);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7) >>> 3;
  await Deno.writeFile(`${files.root}/large.bin`, bytes);
  assertEquals(await (await files.get("/large.bin")).bytes(), bytes);
  const part = await files.get("/large.bin", { range: "bytes=100000-299998" });
  assertEquals(await part.bytes(), bytes.subarray(100_000, 299_999));
  const reader = (await files.get("/large.bin")).body!.getReader();
  await reader.read();
  await reader.cancel(); // the sanitizer sees that the file is closed
  await (await files.get("/large.bin")).body!.cancel();

  // Over a stream, with a window that is much smaller than the file.
  const { client, server } = streamPair();
  const served = serveHttpStream(server, staticFiles(files.root));
  const response = await exchangeOverStream(client, {
    method: "GET",
    scheme: "http",
    authority: "a",
    path: "/large.bin",
    fields: [],
  });
  assertEquals(await response.body.bytes(), bytes);
  assert(client.maxQueued < 140_000);
  await served;
});

Deno.test("a file that is cut short while it is sent errors its body", async () => {
  using files = site();
  await Deno.writeFile(`${files.root}/large.bin`, new Uint8Array(300_000));
  const response = await files.get("/large.bin");
  const reader = response.body!.getReader();
  await reader.read();
  await Deno.truncate(`${files.root}/large.bin`, 100_000);
  await assertRejects(
    async () => {
      for (;;) await reader.read();
    },
    Error,
    "cut short",
  );
});

Deno.test("a folder that is not there is the operator's error, not the client's", async () => {
  const handler = staticFiles("/nonexistent/htx-static");
  await assertRejects(() => handler(new Request("http://a/")));
});

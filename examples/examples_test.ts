import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { createGateway, denoFront, localUpstream } from "@betanet/htx/gateway";
import { assertOneLine, assertStopped, curl, Example, refuses, run } from "./_testing.ts";

/** The examples with the smallest permissions they run with, a call that works, and calls that do not. */
const EXAMPLES: Record<string, { permissions: string[]; works: string[]; bad: [string[], RegExp][] }> = {
  "run.ts": {
    permissions: ["-N"],
    works: ["--port", "PORT"],
    bad: [[["--port", "x"], /--port is "x"/], [["stray"], /"stray" is one argument too many/]],
  },
  "run_fetch.ts": {
    permissions: ["-N"],
    works: ["--port", "PORT"],
    bad: [[["--port", "65536"], /--port is "65536"/], [["--port"], /--port needs a value/]],
  },
  "start_server.ts": {
    permissions: ["-N"],
    works: ["echo", "127.0.0.1", "PORT"],
    bad: [
      [[], /the first argument is missing: it must be echo or gateway/],
      [["other"], /the first argument is "other"/],
      [["echo", "127.0.0.1"], /PORT is missing/],
      [["echo", "127.0.0.1", "-1"], /"-1" is not an option/],
      [["gateway", "127.0.0.1", "0", "127.0.0.1", "0", "a b", "0011223344556677"], /COOKIE_NAME/],
      [
        ["gateway", "127.0.0.1", "0", "127.0.0.1", "0", "bn1", "0011"],
        /KEY_ID_HEX is not 16 hexadecimal digits/,
      ],
    ],
  },
  "client_cli.ts": {
    permissions: ["-N"],
    works: [],
    bad: [[[], /HOST is missing/], [["127.0.0.1", "http", "00", "hi"], /PORT is "http"/], [
      ["127.0.0.1", "0", "00", "hi"],
      /PORT is "0", not a port number of 1 to 65535/,
    ]],
  },
  "gateway_server.ts": {
    permissions: ["-N"],
    works: ["127.0.0.1", "PORT"],
    bad: [[["127.0.0.1"], /PORT is missing/]],
  },
  "gateway_client.ts": {
    permissions: ["-N"],
    works: [],
    bad: [
      [[], /URL is missing/],
      [["127.0.0.1:8080"], /URL must begin with http/],
      [["http://127.0.0.1:8080/"], /--key-id is missing/],
      [["http://127.0.0.1:8080/", "--carrier", "header"], /not one of cookie, query, body/],
    ],
  },
  "make_cookie.ts": {
    permissions: [],
    works: [],
    bad: [[[], /TICKET_PUB_HEX is missing/], [["00", "zz"], /KEY_ID_HEX is not 16 hexadecimal digits/]],
  },
  "build_your_own.ts": {
    permissions: ["-N"],
    works: ["--port", "PORT"],
    bad: [[["--prot", "8080"], /"--prot" is not an option/]],
  },
  "build_your_own_with_tickets.ts": {
    permissions: ["-N"],
    works: ["--port", "PORT"],
    bad: [[["--port=", "1"], /not an option|needs a value/]],
  },
  "start_from_config.ts": {
    permissions: ["-N", "-R"],
    works: [],
    bad: [[["echo"], /FILE is missing/], [["front", "gateway.toml"], /it must be echo or gateway/]],
  },
  "dev_gateway_preview.ts": {
    permissions: ["-N"],
    works: ["--port", "PORT"],
    bad: [[["--site"], /--site needs a value/]],
  },
  "dev_server.ts": {
    permissions: ["-N"],
    works: ["--mode", "echo", "--port", "PORT"],
    bad: [[["--mode", "proxy"], /--mode is "proxy", not one of static, echo/]],
  },
  "static_upstream.ts": {
    permissions: ["-N", "--allow-read=examples/templates"],
    works: ["127.0.0.1", "PORT", "examples/templates/static_site"],
    bad: [[["127.0.0.1", "0"], /ROOT is missing/]],
  },
};

for (const [script, { permissions, works, bad }] of Object.entries(EXAMPLES)) {
  Deno.test(`${script}: --help, bad arguments, a port that is taken, SIGTERM: one line, and the status that says which`, async () => {
    const source = await Deno.readTextFile(new URL(script, import.meta.url));
    const [comment] = source.split("*/");
    assert(
      comment!.startsWith("/**") && comment!.includes("deno run"),
      "the first comment tells how to run it",
    );
    assertMatch(comment!, /Permissions: /);

    const checks = bad.map(async ([args, message]) =>
      assertOneLine(await run(script, permissions, args), 2, message)
    );
    checks.push(
      run(script, [], ["--help"]).then(({ code, stdout, stderr }) => {
        assertEquals([code, stderr], [0, ""]);
        assertMatch(stdout, new RegExp(`Usage: deno run .*examples/${script}`));
        assertMatch(stdout, /Exit status: 0 /);
      }),
    );
    if (works.length > 0) checks.push(checkServer(script, permissions, works));
    for (const check of await Promise.allSettled(checks)) if (check.status === "rejected") throw check.reason;
  });
}

async function checkServer(script: string, permissions: string[], works: string[]): Promise<void> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const taken = await run(script, permissions, works.map((arg) => arg.replace("PORT", String(port))));
  assertOneLine(taken, 1, new RegExp(`port ${port} is taken`));

  await using example = Example.start(script, permissions, works.map((arg) => arg.replace("PORT", "0")));
  await example.find(/127\.0\.0\.1:[1-9][0-9]+/);
  assertStopped(await example.stop("SIGTERM"));
}

Deno.test("run.ts: without permission to listen it says which one it needs", async () => {
  assertOneLine(await run("run.ts", [], ["--port", "0"]), 1, /--allow-net/);
});

Deno.test("run.ts: curl gets back what it posts, through the tunnel", async () => {
  await using example = Example.start("run.ts", ["-N"], ["--port", "0"]);
  const command = await example.find(/try: (curl .+)/);
  assertMatch(command, /^curl -X POST -d hello http:\/\/127\.0\.0\.1:[0-9]+\/echo$/);
  assertEquals(await curl(...command.split(" ").slice(1)), "hello");

  const big = "0123456789abcdef".repeat(64 * 1024);
  const file = await Deno.makeTempFile({ dir: "/tmp" });
  try {
    await Deno.writeTextFile(file, big);
    const url = command.split(" ").at(-1)!;
    assertEquals(await curl("--data-binary", `@${file}`, url), big);
  } finally {
    await Deno.remove(file);
  }
  assertStopped(await example.stop());
});

Deno.test("run.ts: one Ctrl-C that comes twice, from the terminal and from `deno task`, is one", async () => {
  await using example = Example.start("run.ts", ["-N"], ["--port", "0"]);
  const url = await example.find(/gateway on (\S+)/);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const bytes = (text: string) => new TextEncoder().encode(text);
  const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nConnection: close\r\n\r\n";
  await conn.write(bytes(`${head}abc`));
  await conn.read(new Uint8Array(4096)); // the echo has begun its answer
  const stopped = example.stop();
  await refuses(url);
  const again = example.stop();
  await conn.write(bytes("def"));
  const rest = await new Response(conn.readable).text();
  assert(rest.endsWith("def"), rest);
  assertStopped(await stopped);
  assertStopped(await again);
});

Deno.test("run_fetch.ts: JSON with its content type and status", async () => {
  await using example = Example.start("run_fetch.ts", ["-N"], ["--port", "0"]);
  const url = await example.find(/try: curl (.+)/);
  const answer = await curl("-i", url);
  assertMatch(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assertMatch(answer, /\r\ncontent-type: application\/json\r\n/i);
  assertEquals(JSON.parse(answer.split("\r\n\r\n")[1]!), {
    hello: "world",
    method: "GET",
    from: "127.0.0.1",
  });
  assertMatch(await curl(new URL("/", url).href), /hello from behind the tunnel/);
  assertEquals(await curl("-o", "/dev/null", "-w", "%{http_code}", new URL("/nothing", url).href), "404");
});

Deno.test("client_cli.ts: prints the reply of start_server.ts echo, and nothing but one line when there is none", async () => {
  await using server = Example.start("start_server.ts", ["-N"], ["echo", "127.0.0.1", "0"]);
  const port = await server.find(/127\.0\.0\.1:([0-9]+)/);
  const key = await server.find(/^server_pub=([0-9a-f]{64})$/m);
  const permissions = [`--allow-net=127.0.0.1:${port}`];
  const call = (key: string, text: string) =>
    run("client_cli.ts", permissions, ["127.0.0.1", port, key, text]);

  const wrong = call("09".padEnd(64, "0"), "hello"); // answered with silence, which takes its time
  assertEquals(await call(key, "hello, world"), { code: 0, stdout: "hello, world\n", stderr: "" });
  assertEquals((await call(key.toUpperCase(), "grüße")).stdout, "grüße\n");
  assertOneLine(await call("not-a-key", "hello"), 1, /SERVER_PUB_HEX is not a key/);
  assertOneLine(await call("ff".repeat(32), "hello"), 1, /not a canonical X25519/);
  assertOneLine(await wrong, 1, /no handshake with 127\.0\.0\.1:[0-9]+: is it .* SERVER_PUB_HEX its key\?/);
  assertStopped(await server.stop());
  assertOneLine(await call(key, "hello"), 1, /connection refused; is the server running\?/);
});

Deno.test("start_server.ts gateway: a ticket from make_cookie.ts is good once, its session cookie after that", async () => {
  const args = ["gateway", "127.0.0.1", "0", "127.0.0.1", "0", "__Host-bn1", "0011223344556677"];
  await using server = Example.start("start_server.ts", ["-N"], args);
  const url = await server.find(/gateway on (\S+)/);
  await server.find(/^server_pub=[0-9a-f]{64}$/m);
  const pub = await server.find(/^ticket_pub=([0-9a-f]{64})$/m);
  const id = await server.find(/^ticket_key_id=([0-9a-f]{16})$/m);
  assertEquals(id, "0011223344556677");

  const cookie = (await run("make_cookie.ts", [], [pub, id])).stdout.trimEnd();
  assertMatch(cookie, /^Cookie: __Host-bn1=[0-9A-Za-z_-]{172,226}$/);
  const decoy = await curl(url);
  assertMatch(decoy, /It works!/);

  const first = await curl("-i", "-H", cookie, "-d", "hello", `${url}echo`);
  const [head, body] = first.split("\r\n\r\n");
  assertEquals(body, "hello");
  assertEquals(await curl("-H", cookie, "-d", "hello", `${url}echo`), decoy);
  const session = /set-cookie: ([^;\r]+)/i.exec(head!)![1]!;
  for (const text of ["one", "two"]) {
    assertEquals(await curl("-H", `Cookie: ${session}`, "-d", text, `${url}echo`), text);
  }
  assertEquals(await curl("-H", "Cookie: sid=forged", "-d", "hello", `${url}echo`), decoy);
  assertStopped(await server.stop());
});

Deno.test("make_cookie.ts: a name of one's own; bad keys are one line and exit status 1", async () => {
  const [pub, id] = ["09".padEnd(64, "0"), "0011223344556677"];
  assertMatch(
    (await run("make_cookie.ts", [], [pub, id, "visit"])).stdout,
    /^Cookie: visit=[0-9A-Za-z_-]+\n$/,
  );
  const [one, two] = await Promise.all([0, 1].map(() => run("make_cookie.ts", [], [pub, id])));
  assertNotEquals(one!.stdout, two!.stdout);
  assertOneLine(await run("make_cookie.ts", [], ["xyz", id]), 1, /TICKET_PUB_HEX is not a key/);
  assertOneLine(await run("make_cookie.ts", [], ["0".repeat(64), id]), 1, /low order/);
});

Deno.test("gateway_client.ts: every carrier gets in at gateway_server.ts, and nobody's ticket is logged", async () => {
  await using server = Example.start("gateway_server.ts", ["-N"], ["127.0.0.1", "0"]);
  const url = await server.find(/gateway on (\S+)/);
  const pub = await server.find(/^ticket_pub=([0-9a-f]{64})$/m);
  const id = await server.find(/^ticket_key_id=([0-9a-f]{16})$/m);
  const call = (...args: string[]) =>
    run("gateway_client.ts", [`--allow-net=${new URL(url).host}`], [
      `${url}echo?q=1`,
      ...["--ticket-pub", pub, "--key-id", id],
      ...args,
    ]);
  for (const carrier of ["cookie", "query", "body"]) {
    const { code, stdout, stderr } = await call("--carrier", carrier, "--data", `by=${carrier}`);
    assertEquals({ code, stdout, stderr }, { code: 0, stdout: `by=${carrier}`, stderr: "HTTP 200\n" });
  }
  assertMatch((await call()).stdout, /This is the echo upstream/);
  // Another site's cookie name: a stranger.
  assertEquals((await call("--carrier", "cookie", "--site-name", "__Host-other")).stderr, "HTTP 404\n");
  const outcome = await server.stop();
  assertStopped(outcome);
  assertMatch(outcome.stderr, /POST \/echo 200/);
  assert(!/bn1|q=1/.test(outcome.stderr), outcome.stderr);

  assertOneLine(await call(), 1, /no answer from http:\/\/127\.0\.0\.1:[0-9]+: is the gateway running\?/);
  const outside = await run("gateway_client.ts", ["-N"], [
    "http://site.example/",
    ...["--ticket-pub", pub, "--key-id", id],
  ]);
  assertOneLine(outside, 1, /in clear.*use an https:\/\/ URL/);
});

Deno.test("start_from_config.ts: keys are made once, for their owner alone, and stay", async () => {
  const folder = await Deno.makeTempDir({ dir: "/tmp" });
  const permissions = ["-N", `-R=${folder}`, `-W=${folder}`];
  const start = (word: string) =>
    Example.start("start_from_config.ts", permissions, [word, `${folder}/config.toml`]);
  try {
    await Deno.writeTextFile(
      `${folder}/config.toml`,
      `[listen]
port = 0
[identity]
key = "file:server.key"
[tickets]
enabled = true
[[tickets.keys]]
id = "0011223344556677"
private_key = "file:ticket.key"
[session]
keys = ["file:session.key"]
[decoy]
status = 200
body = "a decoy"
`,
    );
    const keys: string[] = [];
    for (let i = 0; i < 2; i++) {
      await using server = start("echo");
      const port = await server.find(/echo on 127\.0\.0\.1:([0-9]+)/);
      keys.push(await server.find(/^server_pub=([0-9a-f]{64})$/m));
      const call = await run("client_cli.ts", ["-N"], ["127.0.0.1", port, keys[0]!, "hello"]);
      assertEquals(call, { code: 0, stdout: "hello\n", stderr: "" });
      const outcome = await server.stop();
      assertStopped(outcome);
      assertEquals(outcome.stderr.includes("made file:server.key"), i === 0);
      // e-38
      assertEquals((await Deno.stat(`${folder}/server.key`)).mode! & 0o777, 0o600);
      assert(
        !(outcome.stdout + outcome.stderr).includes((await Deno.readTextFile(`${folder}/server.key`)).trim()),
      );
    }
    assertEquals(keys[0], keys[1]);

    let session = "";
    const pubs: string[] = [];
    for (let i = 0; i < 2; i++) {
      await using server = start("gateway");
      const url = await server.find(/gateway on (\S+)/);
      pubs.push(await server.find(/^ticket_pub=([0-9a-f]{64})$/m));
      assertEquals(await curl(url), "a decoy");
      if (i === 0) {
        const cookie = (await run("make_cookie.ts", [], [pubs[0]!, "0011223344556677"])).stdout.trimEnd();
        const answer = await curl("-i", "-H", cookie, "-d", "hello", url);
        assertMatch(answer, /\r\n\r\nhello$/);
        session = /set-cookie: ([^;\r]+)/i.exec(answer)![1]!;
      } else assertEquals(await curl("-H", `Cookie: ${session}`, "-d", "again", url), "again");
      assertStopped(await server.stop());
    }
    assertEquals(pubs[0], pubs[1]);
    for (const name of ["ticket.key", "session.key"]) {
      assertEquals((await Deno.stat(`${folder}/${name}`)).mode! & 0o777, 0o600);
    }

    await Deno.writeTextFile(`${folder}/bad.toml`, "[listen]\nport = 0\nprt = 1\n[lissten]\n");
    const bad = await run("start_from_config.ts", permissions, ["gateway", `${folder}/bad.toml`]);
    assertOneLine(
      bad,
      1,
      /bad\.toml:3: listen\.prt: unknown key; did you mean .*port\?; .*bad\.toml:4: lissten/,
    );
    const none = await run("start_from_config.ts", permissions, ["echo", `${folder}/none.toml`]);
    assertOneLine(none, 1, /there is no file .*none\.toml/);
    const denied = await run("start_from_config.ts", [], ["echo", `${folder}/config.toml`]);
    assertOneLine(denied, 1, /--allow-read/);
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    await Deno.writeTextFile(`${folder}/taken.toml`, `[listen]\nport = ${taken.addr.port}\n`);
    for (const word of ["echo", "gateway"]) {
      const outcome = await run("start_from_config.ts", permissions, [word, `${folder}/taken.toml`]);
      assertOneLine(outcome, 1, new RegExp(`listen\\.port: 127\\.0\\.0\\.1:${taken.addr.port} is taken`));
    }
    await Deno.remove(`${folder}/server.key`);
    const unwritable = await run("start_from_config.ts", ["-N", `-R=${folder}`], [
      "echo",
      `${folder}/config.toml`,
    ]);
    assertOneLine(unwritable, 1, /Cannot make file:server\.key.*--allow-write=/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("build_your_own.ts: its routes answer through the tunnel, events as they are made", async () => {
  await using example = Example.start("build_your_own.ts", ["-N"], ["--port", "0"]);
  const url = await example.find(/your application on (\S+)/);
  assertEquals(await curl(`${url}hello/you`), "hello, you\n");
  assertEquals(await curl("-d", "be quiet", `${url}shout`), "BE QUIET");
  assertMatch(await curl("-i", url), /content-type: text\/html/i);
  const response = await fetch(`${url}time`);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  assertMatch((await reader.read()).value!, /^data: [0-9T:.Z-]+\n\n$/); // the first alone, before the others are made
  await reader.cancel();
  assertStopped(await example.stop());
});

Deno.test("build_your_own_with_tickets.ts: the lines it prints do what they say", async () => {
  await using example = Example.start("build_your_own_with_tickets.ts", ["-N"], ["--port", "0"]);
  const url = await example.find(/the decoy: +curl (\S+)/);
  const [pub, id] = (await example.find(/make_cookie\.ts ([0-9a-f]{64} [0-9a-f]{16})/)).split(" ");
  assertMatch(await curl(url), /Bicycles/);
  const cookie = (await run("make_cookie.ts", [], [pub!, id!])).stdout.trimEnd();
  assertEquals(await curl("-H", cookie, url), "welcome to /\n");
  assertMatch(await curl("-H", cookie, url), /Bicycles/);
  assertStopped(await example.stop());
});

Deno.test("dev_gateway_preview.ts: a stranger's face, and a link that lets one in once", async () => {
  const permissions = ["-N", "--allow-read=examples/templates/static_site"];
  const args = ["--site", "examples/templates/static_site", "--port", "0"];
  await using example = Example.start("dev_gateway_preview.ts", permissions, args);
  const stranger = await example.find(/as a stranger: +(\S+)/);
  const link = await example.find(/with a ticket: +(\S+)/);
  assertMatch(await curl(stranger), /A site like any other/);
  assertMatch(await curl(link), /A small site/);
  assertMatch(await curl(link), /A site like any other/);
  assertStopped(await example.stop());
  assertOneLine(
    await run("dev_gateway_preview.ts", ["-N", "--allow-read"], ["--port", "0", "--decoy", "/no/such"]),
    1,
    /\/no\/such is not a directory/,
  );
});

Deno.test("dev_server.ts: files, or an echo, over plain HTTP", async () => {
  await using files = Example.start("dev_server.ts", ["-N", "--allow-read=examples/templates"], [
    ...["--root", "examples/templates/static_site", "--port", "0"],
  ]);
  const site = await files.find(/on (http:\S+)/);
  assertMatch(await curl("-i", site), /content-type: text\/html; charset=utf-8\r\n[^]*A small site/i);
  assertEquals(
    await curl("-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", `${site}../../run.ts`),
    "404",
  );
  assertStopped(await files.stop());

  await using echo = Example.start("dev_server.ts", ["-N"], ["--mode", "echo", "--port", "0"]);
  const url = await echo.find(/on (http:\S+)/);
  assertEquals(await curl("-d", "hello", url), "hello");
  assertEquals(await curl("-o", "/dev/null", "-w", "%{http_code}", url), "405");
  assertStopped(await echo.stop());

  const missing = await run("dev_server.ts", ["-N", "--allow-read"], ["--root", "/no/such", "--port", "0"]);
  assertOneLine(missing, 1, /\/no\/such is not a directory/);
});

Deno.test("static_upstream.ts: the files of a directory behind a gateway: types, tags, ranges, and nothing else", async () => {
  const root = await Deno.makeTempDir({ dir: "/tmp" });
  try {
    await Deno.writeTextFile(`${root}/index.html`, "<h1>home</h1>");
    await Deno.writeTextFile(`${root}/a.json`, '{"a":1}');
    await Deno.writeTextFile(`${root}/.env`, "SECRET=1");
    // Deno.symlink() asks for permission to read and write everything
    await new Deno.Command("bash", { args: ["-c", 'ln -s /etc/passwd "$0/link"', root] }).output();
    await Deno.lstat(`${root}/link`);
    const permissions = ["-N", `--allow-read=${root}`];
    await using upstream = Example.start("static_upstream.ts", permissions, ["127.0.0.1", "0", root]);
    const port = Number(await upstream.find(/127\.0\.0\.1:([0-9]+)/));
    const publicKey = await upstream.find(/^server_pub=([0-9a-f]{64})$/m);
    {
      await using gateway = createGateway({ upstream: { port, publicKey } });
      await using front = denoFront(gateway.handler, { port: 0 });
      const url = `http://127.0.0.1:${front.addr.port}/`;
      const status = (...args: string[]) =>
        curl("-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", ...args);
      assertEquals(await curl(url), "<h1>home</h1>");
      const head = await curl("-I", `${url}a.json`);
      assertMatch(head, /^HTTP\/1\.1 200 [^]*content-type: application\/json/i);
      const tag = /etag: (\S+)/i.exec(head)![1]!;
      assertEquals(await status("-H", `If-None-Match: ${tag}`, `${url}a.json`), "304");
      assertEquals(await curl("-r", "1-3", `${url}a.json`), '"a"');
      // e-15
      for (const path of [".env", "link", "../etc/passwd", "%2e%2e/etc/passwd", "..%2fetc/passwd", "none"]) {
        assertEquals(await status(url + path), "404", path);
      }
      assertEquals(await status("-d", "x", url), "405");
    }
    assertStopped(await upstream.stop());
    const missing = await run("static_upstream.ts", permissions, ["127.0.0.1", "0", `${root}/none`]);
    assertOneLine(missing, 1, /is not a directory/);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("templates: the applications answer by themselves, as deno serve and Workers would call them", async () => {
  const { default: small } = await import("./templates/fetch_app/app.ts");
  assertEquals(await small.fetch(new Request("http://a/json")).json(), { ok: true, method: "GET" });
  assertEquals(small.fetch(new Request("http://a/none")).status, 404);
});

Deno.test("templates: the Hono application runs unchanged behind the tunnel", async () => {
  const { makeApp } = await import("./templates/fetch_app_advanced/app.ts");
  await using upstream = localUpstream(makeApp());
  await using gateway = createGateway({ upstream });
  await using front = denoFront(gateway.handler, { port: 0 });
  const url = `http://127.0.0.1:${front.addr.port}`;

  const made = await fetch(`${url}/notes`, { method: "POST", body: JSON.stringify({ text: "milk" }) });
  assertEquals([made.status, made.headers.get("location")], [201, "/notes/1"]);
  assertEquals(await made.json(), { id: 1, text: "milk" });
  assertEquals(await (await fetch(`${url}/notes`)).json(), [{ id: 1, text: "milk" }]);
  const count = await fetch(`${url}/count`);
  assertEquals(await count.text(), "1\n2\n3\n4\n5\n");
  for (
    const [status, error, path, init] of [
      [400, "the body is not JSON", "/notes", { method: "POST", body: "{" }],
      [422, 'expected {"text": "..."}', "/notes", { method: "POST", body: "{}" }],
      [404, "not found", "/notes/9", {}],
    ] as [number, string, string, RequestInit][]
  ) {
    const response = await fetch(url + path, init);
    assertEquals([response.status, await response.json()], [status, { error }]);
  }
  assertEquals((await fetch(`${url}/notes/1`, { method: "DELETE" })).status, 204);
});

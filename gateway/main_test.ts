import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { KeyPair } from "../noise/mod.ts";
import { generateTicketKey, makeTicketCookie, makeTicketQuery } from "../tickets/mod.ts";
import { Child, curl, long, serveStreams, startGateway, startUpstream, until } from "./_testing.ts";
import { makeCertificate } from "./_testing_tls.ts";
import { parseConfig } from "./config.ts";
import { runGateway } from "./run.ts";

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

async function program(...args: string[]): Promise<{ code: number; lines: string[] }> {
  await using child = new Child(["run", "--quiet", "-N", "-R", "-E", "gateway/main.ts", ...args]);
  const { code } = await child.status;
  await until(() => child.lines.length > 0);
  return { code, lines: child.lines };
}

Deno.test("gateway/main.ts: arguments, --check, --print-config, one-line errors", async () => {
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/bad.toml`, "[listen]\nport = 'x'\n");
  const [help, check, print, unknown, bad, none] = await Promise.all([
    program("--help"),
    program("--check"),
    program("--print-config"),
    program("--frobnicate"),
    program("--config", `${base}/bad.toml`),
    program("--config", `${base}/none.toml`, "--check"),
  ]);
  const [short, dashes, behind] = await Promise.all([
    program("-h"),
    program("--", "--check"), // what "deno task gateway -- --check" comes to
    program("--check", "--", "other.toml"),
  ]);
  assertEquals(short, help);
  assertStringIncludes(dashes.lines[0]!, "gateway.toml: ok");
  assertEquals([behind.code, behind.lines], [2, ["gateway: unknown argument other.toml; see --help"]]);
  assertEquals([help.code, check.code, print.code], [0, 0, 0]);
  assertStringIncludes(check.lines[0]!, "gateway.toml: ok");
  assert(print.lines.includes("port = 8080"));
  assertEquals([unknown.code, unknown.lines], [2, ["gateway: unknown argument --frobnicate; see --help"]]);
  assertEquals([bad.code, bad.lines], [1, [
    `${base}/bad.toml:2: listen.port: expected a whole number from 0 to 65535, got "x"`,
  ]]);
  assertEquals([none.code, none.lines], [1, [
    `gateway: cannot read ${base}/none.toml: there is no such file`,
  ]]);
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await Deno.writeTextFile(`${base}/taken.toml`, `[listen]\nport = ${taken.addr.port}\n`);
  const busy = await program("--config", `${base}/taken.toml`);
  const { port } = taken.addr;
  assertEquals([busy.code, busy.lines], [1, [`gateway: Cannot use listen.port: 127.0.0.1:${port} is taken`]]);
  taken.close();
  await Deno.remove(base, { recursive: true });
});

Deno.test("a gateway with tickets prints what its clients have to know, and nothing to try that shows the decoy", async () => {
  const base = await Deno.makeTempDir();
  const [key, other] = [KeyPair.generate(), KeyPair.generate()];
  await Deno.writeTextFile(`${base}/t.key`, key.exportPrivateHex(), { mode: 0o600 });
  const source = `[listen]
port = 0
[tickets]
enabled = true
[[tickets.keys]]
id = "0011223344556677"
private_key = "file:t.key"
`;
  const { child, file } = await startGateway(source, { base, env: { OTHER: other.exportPrivateHex() } });
  await using _child = child;
  await child.line(/ticket_key_id=/);
  const told = () => child.lines.filter((line) => /^(?:ticket_|try:)/.test(line));
  const first = [`ticket_pub=${key.publicKeyHex}`, "ticket_key_id=0011223344556677"];
  assertEquals(told(), first);
  // Keys are rotated: both are live, and the new one's clients are told.
  const more = `[[tickets.keys]]\nid = "8899aabbccddeeff"\nprivate_key = "env:OTHER"\n`;
  await Deno.writeTextFile(file, source + more);
  child.kill("SIGHUP");
  await child.line(/ticket_key_id=8899aabbccddeeff/);
  const both = [...first, `ticket_pub=${other.publicKeyHex}`, "ticket_key_id=8899aabbccddeeff"];
  assertEquals(told(), [...first, ...both]);
  child.kill("SIGTERM");
  assertEquals((await child.status).code, 0);
  assertEquals(told(), [...first, ...both]);
  await Deno.remove(base, { recursive: true });
});

Deno.test("SIGHUP reads the file again; a bad one leaves the old; SIGTERM ends the process", async () => {
  const { child, url, file } = await startGateway("[listen]\nport = 0\n");
  await using _child = child;
  const post = async (size: number) => {
    const response = await fetch(`${url}/echo`, { method: "POST", body: "x".repeat(size) });
    await response.text();
    return response.status;
  };
  assertEquals(await post(100), 200);
  await Deno.writeTextFile(file, "[listen]\nport = 0\n[limits]\nbody_bytes = 50\n");
  child.kill("SIGHUP");
  await child.line(/Configuration read again/);
  assertEquals([await post(100), await post(40)], [413, 200]);
  await Deno.writeTextFile(file, "[limits]\nbody_bites = 5\n");
  child.kill("SIGHUP");
  await child.line(/Configuration not taken, the old one stays: .*:2: limits\.body_bites: unknown key/);
  assertEquals(await post(40), 200);
  child.kill("SIGTERM");
  assertEquals((await child.status).code, 0);
});

Deno.test("SIGHUP does not open the door where the file is about to be written, and says so where it does", async () => {
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/ticket.key`, "ab".repeat(32), { mode: 0o600 });
  const guarded = "[listen]\nport = 0\n[tickets]\nenabled = true\n" +
    `[[tickets.keys]]\nid = "0102030405060708"\nprivate_key = "file:ticket.key"\n`;
  const { child, url, file } = await startGateway(guarded, { base });
  await using _child = child;
  const ask = async () => {
    const response = await fetch(`${url}/`);
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await ask(), 404);
  await Deno.writeTextFile(file, " \n"); // as editors and copies leave a file for a moment
  child.kill("SIGHUP");
  await child.line(/Configuration not taken, the old one stays: .* is empty/);
  assertEquals(await ask(), 404);
  await Deno.writeTextFile(file, guarded.replace("true", "false"));
  child.kill("SIGHUP");
  await child.line(/warning gateway tickets are no longer asked for: everybody is let in/);
  await child.line(/Configuration read again/);
  assertEquals(await ask(), 200);
  await Deno.remove(base, { recursive: true });
});

Deno.test("a line of the log is one line of text, whatever an upstream gives for a reason", async () => {
  const server = serveStreams((stream) =>
    stream.reset("INTERNAL_ERROR", "a\n\x1b\x85\x9b2J\u2028\u202e\u2066b")
  );
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${server.addr.port}"\npublic_key = "${
      hex(server.publicKey)
    }"\n`,
  );
  await using _child = child;
  const response = await fetch(url);
  await response.body?.cancel();
  assertEquals(response.status, 502);
  await child.line(/ GET \/ failed with 502: .*: INTERNAL_ERROR: a {4}2J {3}b id=/);
  await server.shutdown({ graceMs: 0 });
});

Deno.test("SIGTERM during 100 streaming downloads: all finish, or are cut at the deadline so that clients see it", async () => {
  const upstream = await startUpstream();
  await using _upstream = upstream.child;
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${upstream.port}"\npublic_key = "${upstream.publicKey}"\n` +
      `[limits]\nshutdown_ms = 700\n[log]\nlevel = "warning"\n`,
  );
  await using _child = child;
  const size = 65_536 * 4;
  const ask = async (n: number) => {
    // Half of them are through long before the deadline, half would take much longer.
    const response = await fetch(`${url}/download?bytes=${size}&pause=${n % 2 === 0 ? 20 : 60_000}`);
    begun++;
    try {
      return (await response.arrayBuffer()).byteLength;
    } catch {
      return "cut";
    }
  };
  let begun = 0;
  const asking = Array.from({ length: 100 }, (_, n) => ask(n));
  await until(() => begun === 100, 15_000);
  child.kill("SIGTERM");
  const results = await Promise.all(asking);
  assertEquals(results.filter((one) => one === size).length, 50);
  assertEquals(results.filter((one) => one === "cut").length, 50);
  assertEquals((await child.status).code, 0);
});

Deno.test("SIGTERM ends the process with status 0, whatever connections stay behind", async () => {
  const upstream = await startUpstream();
  await using _upstream = upstream.child;
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${upstream.port}"\npublic_key = "${upstream.publicKey}"\n` +
      `[limits]\nshutdown_ms = 300\n[log]\nlevel = "error"\n`,
  );
  await using _child = child;
  const port = Number(new URL(url).port);
  const conns: Deno.Conn[] = [];
  for (
    const [sent, answer] of [
      [
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\nabc",
        "HTTP/1.1 100",
      ],
      ["GET /download?bytes=100000000 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"], // read no further
      ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "\0"],
      ["", ""],
    ] as const
  ) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    conns.push(conn);
    if (sent === "") continue;
    await conn.write(new TextEncoder().encode(sent));
    const buffer = new Uint8Array(64); // the answer tells that the server has it
    const n = await conn.read(buffer);
    assertStringIncludes(new TextDecoder().decode(buffer.subarray(0, n ?? 0)), answer);
  }
  child.kill("SIGTERM");
  const { code } = await child.status;
  for (const conn of conns) conn.close();
  assertEquals([code, child.lines.filter((line) => /error/i.test(line))], [0, []]);
});

Deno.test("64 clients while the upstream is killed and restarted five times: every request gets its own answer", async () => {
  const key = KeyPair.generate();
  let upstream = await startUpstream(0, key.exportPrivateHex());
  const { port } = upstream;
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${port}"\npublic_key = "${key.publicKeyHex}"\n[log]\nlevel = "error"\n`,
  );
  await using _child = child;
  let stop = false;
  const statuses = new Map<string, number>();
  const count = (what: string) => statuses.set(what, (statuses.get(what) ?? 0) + 1);
  const client = async (n: number) => {
    for (let i = 0; !stop; i++) {
      const mine = `${n}-${i}`;
      const response = await fetch(`${url}/${mine}`, i % 2 === 0 ? {} : { method: "POST", body: mine });
      const text = await response.text();
      if (response.status === 200) assertEquals(text, i % 2 === 0 ? `/${mine} ` : `/${mine} ${mine}`);
      else assert([502, 503, 504].includes(response.status), String(response.status));
      count(String(response.status));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const clients = Array.from({ length: 64 }, (_, n) => client(n));
  for (let round = 0; round < 5; round++) {
    const before = statuses.get("200") ?? 0;
    await until(() => (statuses.get("200") ?? 0) >= before + 64, 10_000); // nobody touches the gateway
    await upstream.child[Symbol.asyncDispose](); // SIGKILL
    upstream = await startUpstream(port, key.exportPrivateHex());
  }
  stop = true;
  await Promise.all(clients);
  let last = "";
  await until(async () => {
    const response = await fetch(`${url}/last`);
    last = await response.text();
    return response.status === 200;
  });
  assertEquals(last, "/last ");
  await upstream.child[Symbol.asyncDispose]();
});

Deno.test("a large download and upload pass in constant memory", async () => {
  const upstream = await startUpstream();
  await using _upstream = upstream.child;
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${upstream.port}"\npublic_key = "${upstream.publicKey}"\n`,
  );
  await using _child = child;
  const both = async (bytes: number) => {
    const { out } = await curl(
      ...["--max-time", "280", "-w", "%{size_download} %{http_code}", "-o", "/dev/null"],
      `${url}/download?bytes=${bytes}`,
    );
    assertEquals(out, `${bytes} 200`);
    // A file of that size without a byte on the disk. curl announces its length: Deno's server is slow with chunked
    // bodies whose reader is not as fast as the socket, whoever reads them.
    const file = await Deno.makeTempFile();
    try {
      await Deno.truncate(file, bytes);
      const sent = await curl("--max-time", "280", "-T", file, "-X", "POST", `${url}/upload`);
      assertEquals(sent.out, `{"bytes":${bytes}}`);
    } finally {
      await Deno.remove(file);
    }
  };
  await both(24 * 1024 ** 2); // buffers and compiled code
  const before = await child.rss();
  let most = before;
  let done = false;
  const watching = (async () => {
    while (!done) {
      most = Math.max(most, await child.rss());
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  try {
    await both(long() ? 1024 ** 3 : 64 * 1024 ** 2);
  } finally {
    done = true;
    await watching;
  }
  assert(most - before < 32, `grew from ${before} to ${most} MiB`);
});

/** Shows the same tickets to two gateways at once: how often each is let in, of all showings. */
async function showTwice(
  urls: string[],
  show: (url: string) => Promise<number>,
  copies: number,
): Promise<number> {
  const statuses = await Promise.all(Array.from({ length: copies }, (_, n) => show(urls[n % urls.length]!)));
  return statuses.filter((status) => status === 200).length;
}

async function twoGateways(base: string, store: string, args: string[]): Promise<void> {
  const key = generateTicketKey();
  await Deno.writeTextFile(`${base}/ticket.key`, hex(key.privateKey), { mode: 0o600 });
  const source =
    `[listen]\nport = 0\n[tickets]\nenabled = true\nper_minute = 100000\nburst = 100000\n${store}` +
    `[[tickets.keys]]\nid = "${hex(key.keyId)}"\nprivate_key = "file:ticket.key"\n[log]\nlevel = "error"\n`;
  const [one, two] = await Promise.all([
    startGateway(source, { base, args }),
    startGateway(source, { base, args }),
  ]);
  await using _one = one.child;
  await using _two = two.child;
  const urls = [one.url, two.url];
  const ask = (query: string, cookie?: string) => async (url: string) => {
    const response = await fetch(`${url}/?${query}`, cookie === undefined ? {} : { headers: { cookie } });
    await response.text();
    return response.status;
  };
  assertEquals(await showTwice(urls, ask(makeTicketQuery(key)), 200), 1);
  assertEquals(await showTwice(urls, ask("", makeTicketCookie(key)), 2), 1);
  assertEquals(await showTwice(urls, ask("bn1=junk"), 2), 0);
}

Deno.test("e-09: two gateways on one Deno KV file let a ticket in once, also of 200 copies at once", async () => {
  const base = await Deno.makeTempDir();
  await twoGateways(base, `store = "kv"\nkv_path = "tickets.db"\n`, [
    "--unstable-kv",
    `--allow-write=${base}`,
  ]);
  await Deno.remove(base, { recursive: true });
});

/** Runs `use` with a redis-server of its own, where there is one. */
async function withRedis(use: (url: string, base: string) => Promise<void>): Promise<void> {
  const base = await Deno.makeTempDir();
  const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = probe.addr;
  probe.close();
  let redis: Deno.ChildProcess;
  try {
    redis = new Deno.Command("redis-server", {
      args: ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", base],
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("SKIPPED: there is no redis-server here");
    return;
  }
  try {
    await until(async () => {
      try {
        (await Deno.connect({ hostname: "127.0.0.1", port })).close();
        return true;
      } catch {
        return false;
      }
    });
    await use(`redis://127.0.0.1:${port}`, base);
  } finally {
    redis.kill("SIGTERM");
    await redis.status;
    await Deno.remove(base, { recursive: true });
  }
}

Deno.test("e-09: two gateways on one Redis let a ticket in once, also of 200 copies at once", async () => {
  await withRedis((url, base) => twoGateways(base, `store = "redis"\nredis_url = "${url}"\n`, []));
});

Deno.test("reload() takes per_minute and burst over, also where Redis keeps the buckets", async () => {
  await withRedis(async (url, base) => {
    const key = generateTicketKey();
    await Deno.writeTextFile(`${base}/ticket.key`, hex(key.privateKey), { mode: 0o600 });
    const limited = (perMinute: number, burst: number) =>
      parseConfig(
        `[listen]\nport = 0\n[tickets]\nenabled = true\nstore = "redis"\nredis_url = "${url}"\n` +
          `per_minute = ${perMinute}\nburst = ${burst}\n` +
          `[[tickets.keys]]\nid = "${hex(key.keyId)}"\nprivate_key = "file:ticket.key"`,
      );
    await using running = await runGateway(limited(1, 1), { base, onWarning: () => {} });
    const show = async () => {
      const response = await fetch(`${running.url}/?${makeTicketQuery(key)}`);
      await response.text();
      return response.status;
    };
    assertEquals([await show(), await show()], [200, 404]);
    assertEquals(await running.reload(limited(1, 2)), []);
    assertEquals([await show(), await show(), await show()], [200, 200, 404]);
  });
});

Deno.test("e-37: a thousand half-open connections, and a good client still gets its answer", async () => {
  for (const front of ["node", "deno"]) {
    const { child, url } = await startGateway(
      `[listen]\nport = 0\nfront = "${front}"\nhead_timeout_ms = 1000\n[log]\nlevel = "error"\n`,
    );
    await using _child = child;
    const port = Number(new URL(url).port);
    const conns = await Promise.all(Array.from({ length: 1000 }, async () => {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      await conn.write(new TextEncoder().encode("GET / HTT"));
      return conn;
    }));
    const started = performance.now();
    const response = await fetch(`${url}/echo`, { method: "POST", body: "hello" });
    assertEquals(await response.text(), "hello");
    assert(performance.now() - started < 2000);
    if (front === "node") { // the hardened front ends them by itself
      const buffer = new Uint8Array(512);
      for (const conn of conns.slice(0, 20)) while (await conn.read(buffer).catch(() => null) !== null);
    }
    for (const conn of conns) conn.close();
  }
});

Deno.test("a second signal ends the process at once", async () => {
  const upstream = await startUpstream();
  await using _upstream = upstream.child;
  const { child, url } = await startGateway(
    `[listen]\nport = 0\n[[upstream]]\naddress = "127.0.0.1:${upstream.port}"\npublic_key = "${upstream.publicKey}"\n`,
  );
  await using _child = child;
  const response = await fetch(`${url}/download?bytes=1000000&pause=60000`);
  assertEquals(response.status, 200);
  const reading = response.arrayBuffer().then(({ byteLength }) => `${byteLength} bytes`, () => "cut");
  child.kill("SIGTERM");
  await child.line(/Stopping: running requests have 10000 ms/);
  child.kill("SIGINT");
  assertEquals((await child.status).code, 1);
  assertEquals(await reading, "cut");
});

Deno.test("one Ctrl-C that comes twice, from the terminal and from `deno task`, is one", async () => {
  const { child, url } = await startGateway("[listen]\nport = 0\n");
  await using _child = child;
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const bytes = (text: string) => new TextEncoder().encode(text);
  const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nConnection: close\r\n\r\n";
  await conn.write(bytes(`${head}abc`));
  await conn.read(new Uint8Array(4096)); // the echo has begun its answer
  child.kill("SIGINT");
  await child.line(/Stopping: running requests have 10000 ms/);
  child.kill("SIGINT");
  await conn.write(bytes("def"));
  const rest = await new Response(conn.readable).text();
  assert(rest.endsWith("def"), rest);
  assertEquals((await child.status).code, 0);
});

Deno.test("TLS and HTTP/2 at the front: curl with both versions, Secure cookies", async () => {
  const base = await Deno.makeTempDir();
  await makeCertificate(base);
  const key = generateTicketKey();
  await Deno.writeTextFile(`${base}/ticket.key`, hex(key.privateKey), { mode: 0o600 });
  for (const front of ["deno", "node"]) {
    const { child, url } = await startGateway(
      `[listen]\nport = 0\nfront = "${front}"\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n[tickets]\nenabled = true\n` +
        `[[tickets.keys]]\nid = "${
          hex(key.keyId)
        }"\nprivate_key = "file:ticket.key"\n[admin]\nenabled = true\nport = 0\n`,
      { base },
    );
    await using _child = child;
    for (const version of front === "deno" ? ["--http2", "--http1.1"] : ["--http1.1"]) {
      const ask = (...args: string[]) =>
        curl(version, "--cacert", `${base}/cert.pem`, "-i", "-d", "hello", ...args, `${url}/echo`);
      const first = (await ask("-H", `Cookie: ${makeTicketCookie(key)}`)).out;
      assertStringIncludes(first, version === "--http2" ? "HTTP/2 200" : "HTTP/1.1 200");
      assertStringIncludes(first, "hello");
      const session = /set-cookie: (__Host-sid=[^;]+); .*Secure/i.exec(first)?.[1];
      assert(session !== undefined, first);
      assertStringIncludes((await ask("-H", `Cookie: ${session}`)).out, "hello");
      // Without a body the echo tells how to use it: by the address that the client knows.
      const hint = await curl(version, "--cacert", `${base}/cert.pem`, "-H", `Cookie: ${session}`, url);
      assertStringIncludes(hint.out, `curl -d hello ${url}/echo\n`);
      assertStringIncludes((await ask()).out, "404 Not Found");
    }
    const [, admin] = await child.line(/admin listens on (\S+)/);
    assertEquals((await curl(`${admin}/healthz`)).out, "ok\n");
    assertStringIncludes(
      (await curl(`${admin}/metrics`)).out,
      'htx_gateway_tickets_total{result="accepted"}',
    );
  }
  await Deno.remove(base, { recursive: true });
});

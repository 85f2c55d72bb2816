import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { within } from "../core/_deferred.ts";
import { HtxError, toHex } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { generateTicketKey, makeTicketQuery } from "../tickets/mod.ts";
import { ConfigError, needsRestart, parseConfig, printConfig } from "./config.ts";
import { checkConfig, runGateway } from "./run.ts";
import { makeCertificate } from "./_testing_tls.ts";
import { readOrMakeKeyPair, readSecret, readSecretBytes } from "./secrets.ts";

const HEX = "ab".repeat(32);

Deno.test("parseConfig() names the key that a misspelt one is nearest to, and none that is far from it", () => {
  for (
    const [source, message] of [
      ["[listen]\nprot = 1", "gateway.toml:2: listen.prot: unknown key; did you mean port?"],
      ["[admin]\nhsotname = 'x'", "gateway.toml:2: admin.hsotname: unknown key; did you mean hostname?"],
      ["port = 1", "gateway.toml:1: port: unknown key"],
      ["[listen]\nroot = 'x'", "gateway.toml:2: listen.root: unknown key"],
    ] as const
  ) assertEquals(assertThrows(() => parseConfig(source, "gateway.toml"), ConfigError).message, message);
});

Deno.test("parseConfig() names line, key and what was expected", () => {
  for (
    const [source, message] of [
      [
        "[listen]\n\nport = 'x'",
        'gateway.toml:3: listen.port: expected a whole number from 0 to 65535, got "x"',
      ],
      [
        "[listen]\nport = 70000",
        "gateway.toml:2: listen.port: expected a whole number from 0 to 65535, got 70000",
      ],
      ["[listen]\nport = 1.5", "gateway.toml:2: listen.port: expected a whole number"],
      ["listen = 3", "gateway.toml:1: listen: expected a table, got 3"],
      ["[listen]\nfront = 'nginx'", 'gateway.toml:2: listen.front: expected "deno" or "node", got "nginx"'],
      [
        "[listen]\ntls_cert = 'a.pem'",
        "gateway.toml:2: listen.tls_cert: expected tls_cert and tls_key together",
      ],
      ["# x\n[listn]\nport = 1", "gateway.toml:2: listn: unknown key; did you mean listen?"],
      [
        "[limits]\nheader_bites = 3",
        "gateway.toml:2: limits.header_bites: unknown key; did you mean header_bytes?",
      ],
      [
        "limits.body_bytes = -1",
        "gateway.toml:1: limits.body_bytes: expected a whole number of 0 or more, got -1",
      ],
      ["a = = 3", "gateway.toml:1: not TOML"],
      ["[listen]\nport = 1\nport = 2", "gateway.toml:3: not TOML"],
      ["[upstream]\naddress = 'echo'", "gateway.toml:1: upstream: expected [[upstream]] tables, got a table"],
      ["upstream = []", "gateway.toml:1: upstream: expected one upstream at least"],
      ["[[upstream]]\nname = 'x'", "gateway.toml:1: upstream[0].address: is missing"],
      [
        `[[upstream]]\naddress = 'echo'\n\n[[upstream]]\naddress = 'h:0'\npublic_key = '${HEX}'`,
        'gateway.toml:5: upstream[1].address: expected "host:port" with a port from 1 to 65535, got "h:0"',
      ],
      [
        "[[upstream]]\naddress = 'h:1'",
        "gateway.toml:1: upstream[0].public_key: expected the upstream's public key",
      ],
      [
        "[[upstream]]\naddress = 'h:1'\npublic_key = 'zz'",
        "gateway.toml:3: upstream[0].public_key: expected the upstream's",
      ],
      [
        "[tickets]\nenabled = true",
        "gateway.toml:1: tickets.keys: expected one [[tickets.keys]] table at least",
      ],
      ["[tickets]\nenabled = 'yes'", 'gateway.toml:2: tickets.enabled: expected true or false, got "yes"'],
      [
        "[tickets]\npolicy = 'v2; carriers=cookie:1'",
        "gateway.toml:2: tickets.policy: expected a BN-Ticket policy",
      ],
      ["[tickets]\nstore = 'redis'", "gateway.toml:1: tickets.redis_url: expected a URL"],
      [
        "[session]\nseconds = 10\nmax_seconds = 5",
        "gateway.toml:3: session.max_seconds: expected 10 or more",
      ],
      ["[session]\nname = '__Host-x'", "gateway.toml:2: session.name: expected a cookie name without prefix"],
      ["[decoy]\nkind = 'static'", "gateway.toml:1: decoy.root: expected a folder"],
      [
        "[listen]\ntrusted_proxies = ['10.0.0.0/8', '10.0.0.0/33']",
        "gateway.toml:2: listen.trusted_proxies[1]: expected an IP",
      ],
      [
        '[log]\nlevel = """\nport = 1\n"""\n[admin]\nport = true',
        "gateway.toml:6: admin.port: expected a whole number",
      ],
      [
        '[decoy]\nbody = "x" # three quotes: """\nstatus = 1',
        "gateway.toml:3: decoy.status: expected a whole number from 200 to 599, got 1",
      ],
      [
        '[decoy]\nbody = """a \\""" b\nstatus = 1\n"""\nstatus = 2',
        "gateway.toml:5: decoy.status: expected a whole number from 200 to 599, got 2",
      ],
      [
        "[listen]\ntrusted_proxies = [\n  ['10.0.0.1'],\n]\nport = -1",
        "gateway.toml:5: listen.port: expected a whole number from 0 to 65535, got -1",
      ],
      [
        "\n" + "[[upstream]]\naddress = 'echo'\n".repeat(4),
        "gateway.toml:2: upstream: expected three upstreams at most",
      ],
      [
        "[tickets]\nredis_url = 'http://h:1'",
        "gateway.toml:2: tickets.redis_url: expected redis://host:port, file:PATH or env:NAME",
      ],
      [
        `[[upstream]]\naddress = 'h:1'\npublic_key = '${"ff".repeat(32)}'`,
        "gateway.toml:3: upstream[0].public_key: expected a public key: no key has this encoding",
      ],
      [
        "[tickets]\npolicy = 'v1; carriers=cookie:1; cookie=__Host-s%69d'",
        "gateway.toml:2: tickets.policy: expected two names: tickets and sessions have one cookie, __Host-s%69d",
      ],
      [
        "[session]\nname = 'bn1'",
        "gateway.toml:2: session.name: expected two names: tickets and sessions have one cookie, __Host-bn1",
      ],
      [
        "[admin]\nenabled = true\nport = 8080\nhostname = '0.0.0.0'",
        "gateway.toml:3: admin.port: expected another port than listen.port",
      ],
    ] as const
  ) {
    const error = assertThrows(() => parseConfig(source), ConfigError);
    assert(
      error.message.split("\n").some((line) => line.startsWith(message)),
      `${error.message}\n  instead of\n${message}`,
    );
  }
});

Deno.test("parseConfig() tells every problem, and never shows a secret that stands in the file", () => {
  const error = assertThrows(
    () =>
      parseConfig(
        `[[tickets.keys]]\nid = '00'\nprivate_key = '${HEX}'\n[session]\nkeys = ['${HEX}']\n[identity]\nkey = '${HEX}'`,
      ),
    ConfigError,
  );
  assertEquals(error.problems.length, 4);
  assert(!error.message.includes(HEX));
  const untabled = assertThrows(() => parseConfig(`identity = '${HEX}'`), ConfigError);
  assertEquals(untabled.message, "gateway.toml:1: identity: expected a table");
});

Deno.test("printConfig() gives a configuration that reads back equal, and masks the password of a URL", async () => {
  const template = await Deno.readTextFile(
    new URL("../examples/templates/config/gateway.toml", import.meta.url),
  );
  const config = parseConfig(template);
  assertEquals(config, parseConfig("")); // the template holds the defaults, all of them
  assertEquals(parseConfig(printConfig(config)), config);
  for (const [table, keys] of Object.entries(config)) {
    for (const key of Object.keys(Array.isArray(keys) ? keys[0] : keys)) {
      if (table !== "tickets" || key !== "keys") {
        assert(new RegExp(`^${key} = `, "m").test(template), `${table}.${key}`);
      }
    }
  }
  const redis = parseConfig("[tickets]\nredis_url = 'redis://me:hidden@127.0.0.1:6379'");
  assertStringIncludes(printConfig(redis), "redis://***@127.0.0.1:6379");
});

Deno.test("needsRestart() names what a running gateway cannot take over", () => {
  const before = parseConfig("");
  assertEquals(
    needsRestart(before, parseConfig("[limits]\nbody_bytes = 5\n[listen]\ntrusted_proxies = ['::1']")),
    [],
  );
  assertEquals(needsRestart(before, parseConfig("[listen]\nport = 1\n[log]\nlevel = 'debug'")), [
    "listen.port",
    "log.level",
  ]);
});

Deno.test("e-38: the identity is made once with mode 0600, and is the same afterwards", async () => {
  const base = await Deno.makeTempDir();
  const first = await readOrMakeKeyPair("file:gateway.key", { base });
  assertEquals((await Deno.stat(`${base}/gateway.key`)).mode! & 0o777, 0o600);
  const warnings: string[] = [];
  const second = await readOrMakeKeyPair("file:gateway.key", {
    base,
    onWarning: (one) => warnings.push(one),
  });
  assertEquals([first.made, second.made], [true, false]);
  assertEquals(second.keyPair.publicKeyHex, first.keyPair.publicKeyHex);
  assertEquals(warnings, []);
  await Deno.chmod(`${base}/gateway.key`, 0o644);
  await readOrMakeKeyPair("file:gateway.key", { base, onWarning: (one) => warnings.push(one) });
  assertStringIncludes(warnings[0]!, "can be read by others (mode 644)");
  // Dialing oneself is refused before anything listens.
  const source =
    `[listen]\nport = 0\n[identity]\nkey = "file:gateway.key"\n[[upstream]]\naddress = "127.0.0.1:9"\n` +
    `public_key = "${first.keyPair.publicKeyHex}"`;
  await assertRejects(
    () => runGateway(parseConfig(source), { base, onWarning: () => {} }),
    TypeError,
    "own key",
  );
  await Deno.remove(base, { recursive: true });
});

Deno.test("a secret that is given where its name belongs is refused without being shown", async () => {
  for (const reference of [HEX, "server.key", "vault:server.key", "file:", "env:", ""]) {
    for (const read of [readSecret, (one: string) => readSecretBytes(one, 32), readOrMakeKeyPair]) {
      const error = await assertRejects(() => read(reference), TypeError);
      assertEquals(error.message, "Cannot read secret: it must be named by file:PATH or env:NAME");
    }
  }
});

Deno.test("secrets come from files and the environment; what cannot be read is told without them", async () => {
  Deno.env.set("HTX_TEST_KEY", HEX);
  assertEquals(await readSecretBytes("env:HTX_TEST_KEY", 32), new Uint8Array(32).fill(0xab));
  Deno.env.set("HTX_TEST_KEY", "secretjunk");
  const error = await assertRejects(() => readSecretBytes("env:HTX_TEST_KEY", 32), Error);
  assertEquals(error.message, "Cannot use env:HTX_TEST_KEY: it does not hold 64 hexadecimal digits");
  Deno.env.delete("HTX_TEST_KEY");
  await assertRejects(() => readSecretBytes("env:HTX_TEST_KEY", 32), Error, "the variable is not set");
  await assertRejects(
    () => readSecretBytes("file:none", 32, { base: "/tmp/htx-nowhere" }),
    Error,
    "there is no such file",
  );
  await assertRejects(
    () => checkConfig(parseConfig("[decoy]\nkind = 'static'\nroot = 'none'"), { base: "/nowhere" }),
    Error,
    "decoy.root",
  );
});

Deno.test("runGateway() warns of tickets without TLS and of missing session keys; reload keeps what was spent", async () => {
  const base = await Deno.makeTempDir();
  const key = generateTicketKey();
  const other = generateTicketKey();
  const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  for (const [name, one] of [["a", key], ["b", other]] as const) {
    await Deno.writeTextFile(`${base}/${name}.key`, hex(one.privateKey), { mode: 0o600 });
  }
  const source = (names: string, rest = "") =>
    `[listen]\nport = 0\n[tickets]\nenabled = true\n${
      [...names].map((name) =>
        `[[tickets.keys]]\nid = "${
          hex(name === "a" ? key.keyId : other.keyId)
        }"\nprivate_key = "file:${name}.key"\n`
      ).join("")
    }${rest}`;
  const warnings: string[] = [];
  await using running = await runGateway(parseConfig(source("a")), {
    base,
    onWarning: (one) => warnings.push(one),
  });
  assertEquals(warnings.length, 2);
  const ask = async (query: string) => {
    const response = await fetch(`${running.url}/?${query}`);
    await response.text();
    return response.status;
  };
  const [spent, mine, theirs] = [makeTicketQuery(key), makeTicketQuery(key), makeTicketQuery(other)];
  assertEquals([await ask(spent), await ask(theirs)], [200, 404]);
  assertEquals(
    await running.reload(parseConfig(source("ab", "[decoy]\nstatus = 200\n[admin]\nport = 1\n"))),
    ["admin.port"],
  );
  assertEquals([await ask(theirs), await ask(mine)], [200, 200]);
  const refused = await fetch(`${running.url}/?${spent}`);
  assertEquals([refused.status, await refused.text()], [200, "404 Not Found\n"]); // the new decoy, and spent stays spent
  await assertRejects(
    () => running.reload(parseConfig(source("ab").replace("b.key", "none.key"))),
    Error,
    "no such file",
  );
  assertEquals(await ask(makeTicketQuery(other)), 200);
  await running.shutdown();
  await Deno.remove(base, { recursive: true });
});

Deno.test("printConfig() masks the password of a URL whatever stands in it", () => {
  for (
    const [url, masked] of [
      ["redis://user:p@ss@h:6379", "redis://***@h:6379"],
      ["rediss://:s3/cret@h:6379/0", "rediss://***@h:6379/0"], // no URL, as it stands
      ["redis://:a?b#c@h", "redis://***@h"],
      ["redis://h:6379/0", "redis://h:6379/0"],
      ["env:REDIS_URL", "env:REDIS_URL"],
    ] as const
  ) {
    const printed = parseConfig(printConfig(parseConfig(`[tickets]\nredis_url = "${url}"`)));
    assertEquals(printed.tickets.redis_url, masked);
  }
});

Deno.test("runGateway() bounds what the node front reads behind an answer as the configuration says", async () => {
  const { keyId, privateKey } = generateTicketKey();
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/ticket.key`, toHex(privateKey), { mode: 0o600 });
  for (const bound of ["linger_bytes = 1000", "linger_timeout_ms = 100"]) {
    const config = parseConfig(
      `[listen]\nport = 0\nfront = "node"\n${bound}\n[tickets]\nenabled = true\n` +
        `[[tickets.keys]]\nid = "${toHex(keyId)}"\nprivate_key = "file:ticket.key"\n`,
    );
    await using running = await runGateway(config, { base, onWarning: () => {} });
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: running.front.addr.port });
    await conn.write(new TextEncoder().encode("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n"));
    if (bound.includes("bytes")) await conn.write(new Uint8Array(2000));
    const started = performance.now();
    const answer = await new Response(conn.readable).text();
    assert(answer.startsWith("HTTP/1.1 404 "), answer);
    assert(performance.now() - started < 4000, bound); // the other bound is 5 s
  }
  await Deno.remove(base, { recursive: true });
});

Deno.test("checkConfig() and runGateway() refuse certificates and keys that cannot serve", async () => {
  const base = await Deno.makeTempDir();
  const { cert, key } = await makeCertificate(base);
  await Deno.mkdir(`${base}/other`);
  await makeCertificate(`${base}/other`);
  await Deno.writeTextFile(
    `${base}/junk.pem`,
    "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n",
  );
  await Deno.writeTextFile(`${base}/both.pem`, key + cert);
  for (const front of ["deno", "node"]) {
    const tls = (cert: string, key: string) =>
      parseConfig(`[listen]\nport = 0\nfront = "${front}"\ntls_cert = "${cert}"\ntls_key = "${key}"`);
    const options = { base, onWarning: () => {} };
    for (
      const [cert, key, message] of [
        ["junk.pem", "key.pem", "Cannot use listen.tls_cert: junk.pem holds no PEM certificate"],
        [
          "cert.pem",
          "cert.pem",
          "Cannot use listen.tls_key: cert.pem holds no PEM private key without a passphrase",
        ],
        [
          "cert.pem",
          "other/key.pem",
          "Cannot use listen.tls_key: other/key.pem is not the key of cert.pem",
        ],
      ] as const
    ) {
      for (const use of [checkConfig, runGateway]) {
        const error = await assertRejects((): Promise<unknown> => use(tls(cert, key), options), Error);
        assertEquals(error.message, message);
      }
    }
    for (const [cert, key] of [["cert.pem", "key.pem"], ["both.pem", "both.pem"]] as const) {
      await checkConfig(tls(cert, key), options);
      await using _running = await runGateway(tls(cert, key), options);
    }
  }
  await Deno.remove(base, { recursive: true });
});

Deno.test("a Deno KV file that cannot be opened is told with its path and why", async () => {
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/ticket.key`, HEX, { mode: 0o600 });
  const config = (path: string) =>
    parseConfig(
      `[listen]\nport = 0\n[tickets]\nenabled = true\nstore = "kv"\nkv_path = "${path}"\n` +
        `[[tickets.keys]]\nid = "0011223344556677"\nprivate_key = "file:ticket.key"`,
    );
  const options = { base, onWarning: () => {} };
  const missing = `Cannot use tickets.kv_path: none/tickets.db: there is no folder ${base}/none/`;
  for (const use of [checkConfig, runGateway]) {
    const error = await assertRejects(
      (): Promise<unknown> => use(config("none/tickets.db"), options),
      Error,
    );
    assertEquals(error.message, missing);
  }
  await checkConfig(config("tickets.db"), options);
  await Deno.mkdir(`${base}/folder`);
  await assertRejects(
    () => runGateway(config("folder"), options),
    Error,
    "Cannot use tickets.kv_path: folder: unable to open database file",
  );
  await Deno.remove(base, { recursive: true });
});

Deno.test("reload() leaves the ticket store open where the configuration is refused", async () => {
  const base = await Deno.makeTempDir();
  const key = generateTicketKey();
  const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  await Deno.writeTextFile(`${base}/ticket.key`, hex(key.privateKey), { mode: 0o600 });
  const config = (store: string) =>
    parseConfig(
      `[listen]\nport = 0\n[tickets]\nenabled = true\nstore = "${store}"\nkv_path = "tickets.db"\n` +
        `[[tickets.keys]]\nid = "${hex(key.keyId)}"\nprivate_key = "file:ticket.key"`,
    );
  await using running = await runGateway(config("kv"), { base, onWarning: () => {} });
  const ask = async (query: string) => {
    const response = await fetch(`${running.url}/?${query}`);
    await response.text();
    return response.status;
  };
  const spent = makeTicketQuery(key);
  assertEquals(await ask(spent), 200);
  const refused = config("memory");
  await assertRejects(
    () => running.reload({ ...refused, limits: { ...refused.limits, body_bytes: -1 } }),
    RangeError,
    "bodyBytes",
  );
  assertEquals([await ask(makeTicketQuery(key)), await ask(spent)], [200, 404]);
  await running.reload(config("memory"));
  assertEquals(await ask(makeTicketQuery(key)), 200);
  await running.shutdown();
  await Deno.remove(base, { recursive: true });
});

Deno.test("reload() opens nothing for a gateway that was stopped, or is while it reads", async () => {
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/ticket.key`, HEX, { mode: 0o600 });
  const config = (store: string) =>
    parseConfig(
      `[listen]\nport = 0\n[tickets]\nenabled = true\nstore = "${store}"\nkv_path = "tickets.db"\n` +
        `[[tickets.keys]]\nid = "0102030405060708"\nprivate_key = "file:ticket.key"`,
    );
  for (const end of ["shutdown", "abort"] as const) {
    const running = await runGateway(config("memory"), { base, onWarning: () => {} });
    await running[end]();
    const error = await assertRejects(() => running.reload(config("kv")), HtxError, "the gateway has ended");
    assertEquals(error.code, "CLOSED");

    // A secret that cannot be read before the gateway has ended.
    const pipe = `${base}/${end}.key`;
    assert((await new Deno.Command("bash", { args: ["-c", `mkfifo -m 600 ${pipe}`] }).output()).success);
    const other = await runGateway(config("memory"), { base, onWarning: () => {} });
    const slow = config("kv");
    const reading = other.reload({
      ...slow,
      tickets: { ...slow.tickets, keys: [{ id: "0102030405060708", private_key: `file:${end}.key` }] },
    });
    await other[end]();
    await Deno.writeTextFile(pipe, HEX);
    assertEquals((await assertRejects(() => reading, HtxError)).code, "CLOSED");
  }
  await Deno.remove(base, { recursive: true });
});

Deno.test("checkConfig() and runGateway() refuse an upstream that has the gateway's own key", async () => {
  const base = await Deno.makeTempDir();
  await Deno.writeTextFile(`${base}/own.key`, HEX, { mode: 0o600 });
  const config = parseConfig(
    `[listen]\nport = 0\n[identity]\nkey = "file:own.key"\n[[upstream]]\naddress = "127.0.0.1:1"\n` +
      `public_key = "${KeyPair.fromHex(HEX).publicKeyHex.toUpperCase()}"`,
  );
  const options = { base, onWarning: () => {} };
  await assertRejects(() => checkConfig(config, options), Error, "upstream 127.0.0.1:1 has the same key");
  await assertRejects(() => runGateway(config, options), Error, "has the gateway's own key");
  await Deno.remove(base, { recursive: true });
});

Deno.test("runGateway() names the listener whose place cannot be had, with both fronts", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  for (const front of ["deno", "node"]) {
    const start = (source: string) => runGateway(parseConfig(source), { onWarning: () => {} });
    await assertRejects(
      () => start(`[listen]\nfront = "${front}"\nport = ${port}`),
      Deno.errors.AddrInUse,
      `Cannot use listen.port: 127.0.0.1:${port} is taken`,
    );
    await assertRejects(
      () => start(`[listen]\nfront = "${front}"\nport = 0\n[admin]\nenabled = true\nport = ${port}`),
      Deno.errors.AddrInUse,
      `Cannot use admin.port: 127.0.0.1:${port} is taken`,
    );
  }
});

Deno.test("shutdown() leaves a slow client what is on its way to it, until the deadline", async () => {
  const base = await Deno.makeTempDir();
  const size = 32 * 1024 ** 2; // more than sockets hold
  await Deno.writeFile(`${base}/large`, new Uint8Array(size));
  await Deno.writeTextFile(`${base}/ticket.key`, HEX, { mode: 0o600 });
  for (const front of ["deno", "node"]) {
    await using running = await runGateway(
      parseConfig(
        `[listen]\nfront = "${front}"\nport = 0\n[limits]\nshutdown_ms = 60000\n[decoy]\nkind = "static"\nroot = "."\n` +
          `[tickets]\nenabled = true\n[[tickets.keys]]\nid = "0011223344556677"\nprivate_key = "file:ticket.key"`,
      ),
      { base, onWarning: () => {} },
    );
    const { port } = running.front.addr;
    using half = await Deno.connect({ hostname: "127.0.0.1", port });
    await half.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHo")); // nobody waits for its rest
    const response = await fetch(`${running.url}/large`);
    let early = true;
    const stopped = running.shutdown();
    await within(stopped.then(() => assert(!early)), 700); // longer than cut answers get
    early = false;
    assertEquals((await response.arrayBuffer()).byteLength, size);
    await stopped;
  }
  await Deno.remove(base, { recursive: true });
});

Deno.test("of two reloads the last stays, also when the first takes longer to read", async () => {
  const base = await Deno.makeTempDir();
  // A key that is there when somebody writes it.
  const slow = `${base}/slow.key`;
  assert((await new Deno.Command("bash", { args: ["-c", 'mkfifo -m 600 "$0"', slow] }).output()).success);
  await using running = await runGateway(parseConfig("[listen]\nport = 0"), { base, onWarning: () => {} });
  const decoy = (body: string) => `[decoy]\nbody = "${body}"\n`;
  const first = running.reload(parseConfig(
    `${decoy("first")}[tickets]\nenabled = true\n` +
      `[[tickets.keys]]\nid = "0011223344556677"\nprivate_key = "file:slow.key"`,
  ));
  const failing = running.reload(parseConfig(`${decoy("failing")}kind = "static"\nroot = "none"`));
  const second = running.reload(parseConfig("[tickets]\nenabled = false"));
  const failed = assertRejects(() => failing, Error, "decoy.root");
  await Deno.writeTextFile(slow, HEX);
  await Promise.all([first, failed, second]);
  // Tickets are off again: the echo answers, and no decoy.
  const response = await fetch(`${running.url}/echo`, { method: "POST", body: "hello" });
  assertEquals(await response.text(), "hello");
  await Deno.remove(base, { recursive: true });
});

Deno.test("KeyPair of the environment is an identity too", async () => {
  const pair = KeyPair.generate();
  Deno.env.set("HTX_TEST_IDENTITY", pair.exportPrivateHex());
  const { keyPair } = await readOrMakeKeyPair("env:HTX_TEST_IDENTITY");
  Deno.env.delete("HTX_TEST_IDENTITY");
  assertEquals(keyPair.publicKeyHex, pair.publicKeyHex);
});

Deno.test("[websocket]: a covert path and where it leads go together", () => {
  const read = (text: string) => parseConfig(`[websocket]\n${text}`).websocket;
  assertEquals(parseConfig("").websocket, { pass: false, covert_path: "", covert_upstream: "" });
  assertEquals(read('pass = true\ncovert_path = "/live"\ncovert_upstream = "[::1]:9443"'), {
    pass: true,
    covert_path: "/live",
    covert_upstream: "[::1]:9443",
  });
  for (
    const [text, message] of [
      [
        'covert_path = "/live"',
        "websocket.covert_upstream: expected covert_path and covert_upstream together",
      ],
      ['covert_path = "live"', 'websocket.covert_path: expected a path such as "/live"'],
      ['covert_path = "/a?b"', 'websocket.covert_path: expected a path such as "/live"'],
      ['covert_upstream = "host"', 'websocket.covert_upstream: expected "host:port"'],
      ['covert_upstream = "host:70000"', 'websocket.covert_upstream: expected "host:port"'],
    ] as const
  ) assertThrows(() => read(text), Error, message);
});

import { assertEquals, assertMatch } from "@std/assert";
import { assertOneLine, Example, run } from "./_testing.ts";

const ALL = ["-N", "-R", "-W"];

Deno.test("bitswap.ts puts a file, serves its blocks, and gets it back", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const text = Array.from({ length: 100_000 }, (_, i) => `line ${i}\n`).join("");
    await Deno.writeTextFile(`${dir}/file.txt`, text);
    const put = await run("bitswap.ts", ALL, ["put", `${dir}/file.txt`, `${dir}/theirs`]);
    assertEquals(put.code, 0, put.stderr);
    assertMatch(put.stdout, /^bafybei[a-z2-7]{52}\n$/);
    assertMatch(put.stderr, /1\.1 MB/);
    const cid = put.stdout.trim();

    let key = "";
    for (const round of [1, 2]) {
      await using server = Example.start("bitswap.ts", ALL, ["serve", "127.0.0.1", "0", `${dir}/theirs`]);
      const peer = await server.find(/peer=(\S+)/);
      // Clients pin the key: it must outlive a restart.
      if (round === 2) assertEquals(peer.split("/")[1], key);
      key = peer.split("/")[1]!;
      assertEquals((await Deno.stat(`${dir}/theirs/.key`)).mode! & 0o777, 0o600);

      const cat = await run("bitswap.ts", ["-N"], ["cat", cid, peer]);
      assertEquals(cat.code, 0, cat.stderr);
      assertEquals(cat.stdout === text, true);
      // The root among them, though it is read twice.
      assertMatch(cat.stderr, /: 6 blocks, 1\.1 MB\n/);
      const get = await run("bitswap.ts", ALL, [
        "get",
        cid,
        `${peer},127.0.0.1:1/${key}`,
        `${dir}/mine${round}`,
      ]);
      assertEquals(get.code, 0, get.stderr);
      assertMatch(get.stdout, new RegExp(`^${cid}: 6 blocks, \\d+ bytes\n$`));
      assertMatch(get.stderr, /127\.0\.0\.1:1 cannot be reached/);
      const absent = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
      assertOneLine(await run("bitswap.ts", ["-N"], ["cat", absent, peer]), 1, /none of the peers has it/);
      const { code, stderr } = await server.stop();
      assertEquals(code, 0);
      assertMatch(stderr, /6 blocks, 1\.1 MB/);
    }
    // What was got is there without anyone to ask.
    const again = await run("bitswap.ts", ALL, ["put", `${dir}/file.txt`, `${dir}/mine1`]);
    assertEquals(again.stdout.trim(), cid);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("bitswap.ts ends without a word when the reader of its output has had enough", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${dir}/big`, new Uint8Array(8 * 1024 ** 2));
    const cid = (await run("bitswap.ts", ALL, ["put", `${dir}/big`, `${dir}/blocks`])).stdout.trim();
    await using server = Example.start("bitswap.ts", ALL, ["serve", "127.0.0.1", "0", `${dir}/blocks`]);
    const peer = await server.find(/peer=(\S+)/);
    const script = new URL("bitswap.ts", import.meta.url).pathname;
    await using cat = new Deno.Command("deno", {
      args: ["run", "--no-prompt", "--quiet", "-N", script, "cat", cid, peer],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const reader = cat.stdout.getReader();
    assertEquals((await reader.read()).done, false);
    await reader.cancel();
    const stderr = await new Response(cat.stderr).text();
    assertEquals((await cat.status).code, 141); // what a shell tells of SIGPIPE
    assertEquals(/error|pipe/i.exec(stderr), null);
    await server.stop();
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("bitswap.ts explains itself, and refuses bad arguments in one line", async () => {
  assertMatch((await run("bitswap.ts", [], ["--help"])).stdout, /Usage: bitswap\.ts put FILE DIR/);
  const key = "11".repeat(32);
  const bad: [string[], number, RegExp][] = [
    [[], 2, /it must be put or serve or get or cat/],
    [["cat", "nonsense", `127.0.0.1:1/${key}`], 2, /"nonsense" is no CID/],
    [["cat", `1220${key}`, "127.0.0.1"], 2, /"127\.0\.0\.1" is no peer/],
    [["cat", `1220${key}`, `127.0.0.1:99999/${key}`], 2, /its port is none of 1 to 65535/],
    [["cat", `1220${key}`, `127.0.0.1:1/${key}`], 1, /none of the peers can be reached/],
  ];
  for (const [args, code, pattern] of bad) {
    const outcome = await run("bitswap.ts", ["-N"], args);
    assertEquals(outcome.code, code, outcome.stderr);
    assertMatch(outcome.stderr, pattern);
  }
  const dir = await Deno.makeTempDir();
  try {
    for (
      const [file, pattern] of [[dir, /is a directory: name a file/], [
        `${dir}/none`,
        /there is no file/,
      ]] as const
    ) {
      assertOneLine(await run("bitswap.ts", ALL, ["put", file, `${dir}/blocks`]), 1, pattern);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("bitswap.ts ends at the first Ctrl-C or SIGTERM while it fetches", async () => {
  // Takes connections and says nothing.
  using mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const key = "11".repeat(32);
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    const peer = `127.0.0.1:${mute.addr.port}/${key}`;
    await using fetching = Example.start("bitswap.ts", ALL, ["cat", `1220${key}`, peer]);
    using _connection = await mute.accept();
    assertEquals((await fetching.stop(signal)).code, code);
  }
});

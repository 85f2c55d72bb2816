import { assertEquals, assertMatch } from "@std/assert";
import { assertOneLine, assertStopped, curl, Example, run } from "./_testing.ts";

Deno.test("forward.ts takes curl to a server on the far side, and to no other", async () => {
  const dir = await Deno.makeTempDir();
  const web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response("from afar"),
  );
  const target = `127.0.0.1:${web.addr.port}`;
  try {
    const key = [`--allow-read=${dir}/key`, `--allow-write=${dir}/key`];
    let pub = "";
    for (const round of [1, 2]) {
      await using server = Example.start("forward.ts", ["--allow-net=127.0.0.1", ...key], [
        "serve",
        "127.0.0.1",
        "0",
        `${target},localhost:*`,
        "--key",
        `${dir}/key`,
      ]);
      const shown = await server.find(/server_pub=([0-9a-f]{64})\n/);
      if (round === 2) assertEquals(shown, pub); // the key is kept
      pub = shown;
      const port = await server.find(/listening on 127\.0\.0\.1:(\d+) for/);
      if (round === 1) {
        assertStopped(await server.stop());
        continue;
      }
      await using near = Example.start("forward.ts", ["--allow-net=127.0.0.1"], [
        "connect",
        "127.0.0.1",
        port,
        pub,
        "0",
        target,
      ]);
      const local = await near.find(/forwarding 127\.0\.0\.1:(\d+) to/);
      assertEquals(await curl(`http://127.0.0.1:${local}/`), "from afar");
      await using outside = Example.start("forward.ts", ["--allow-net=127.0.0.1"], [
        "connect",
        "127.0.0.1",
        port,
        pub,
        "0",
        "127.0.0.1:1",
      ]);
      const other = await outside.find(/forwarding 127\.0\.0\.1:(\d+) to/);
      const refused = await new Deno.Command("curl", { args: ["-s", `http://127.0.0.1:${other}/`] }).output();
      assertEquals(refused.success, false);
      assertMatch((await outside.stop()).stderr, /connection broke: .*not allowed/);
      // The port that it dials is none that it could find taken.
      assertOneLine(
        await run("forward.ts", ["--allow-net=127.0.0.1"], [
          "connect",
          "127.0.0.1",
          port,
          pub,
          local,
          target,
        ]),
        1,
        new RegExp(`^error: port ${local} is taken`),
      );
      assertStopped(await near.stop("SIGTERM"));
    }
    assertEquals((await Deno.stat(`${dir}/key`)).mode! & 0o777, 0o600);
  } finally {
    await web.shutdown();
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("forward.ts explains itself, and refuses bad arguments in one line", async () => {
  const { code, stdout } = await run("forward.ts", [], ["--help"]);
  assertEquals(code, 0);
  assertMatch(stdout, /Usage: deno run -N examples\/forward\.ts serve HOST PORT TARGETS/);
  const pub = "09".repeat(32);
  const bad: [string[], number, RegExp][] = [
    [[], 2, /must be serve or connect/],
    [["serve", "127.0.0.1", "0"], 2, /TARGETS is missing/],
    [["serve", "127.0.0.1", "0", "nonsense"], 2, /neither host:port nor host:\*/],
    [["connect", "127.0.0.1", "1", "xyz", "0", "a:1"], 1, /SERVER_PUB_HEX is not a key/],
    [["connect", "127.0.0.1", "1", pub, "0", "a"], 2, /TARGET is not host:port/],
    [["connect", "127.0.0.1", "1", pub, "0", "a:65536"], 2, /TARGET is not host:port/],
    [["connect", "127.0.0.1", "0", pub, "0", "a:1"], 2, /PORT is "0", not a port number of 1 to 65535/],
    [["connect", "127.0.0.1", "1", pub, "0", "a:1"], 1, /is the server running/],
  ];
  const outcomes = await Promise.all(bad.map(([args]) => run("forward.ts", ["--allow-net=127.0.0.1"], args)));
  for (const [i, [, status, pattern]] of bad.entries()) assertOneLine(outcomes[i]!, status, pattern);
});

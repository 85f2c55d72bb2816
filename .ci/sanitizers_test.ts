// The suite's sanitizers are an option of deno.json that Deno 2.9 leaves off by default. This shows that they are on: a
// test that leaks fails under this project's configuration, and the same test that cleans up passes.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";

const config = decodeURIComponent(new URL("../deno.json", import.meta.url).pathname);

async function runTest(body: string): Promise<{ success: boolean; output: string }> {
  const folder = await Deno.makeTempDir({ prefix: "htx-leak-" });
  try {
    const file = `${folder}/leak_test.ts`;
    await Deno.writeTextFile(file, `Deno.test("leaks on purpose", async () => {\n${body}\n});\n`);
    const { success, stdout, stderr } = await new Deno.Command("deno", {
      args: ["test", "--no-lock", "--no-check", "--config", config, "--allow-net=127.0.0.1", file],
      env: { NO_COLOR: "1" },
    }).output();
    return { success, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const listen = `const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });`;

Deno.test("a test that leaves a timer behind fails", async () => {
  const { success, output } = await runTest("setTimeout(() => {}, 100_000);");
  assert(!success, output);
  assertStringIncludes(output, "timer");
});

Deno.test("a test that leaves a listener open fails", async () => {
  const { success, output } = await runTest(listen);
  assert(!success, output);
  assertStringIncludes(output, "listener");
});

Deno.test("a test that leaves a read pending fails", async () => {
  const { success, output } = await runTest(`${listen}\nlistener.accept().catch(() => {});`);
  assert(!success, output);
});

Deno.test("the same tests pass when they clean up", async () => {
  const { success, output } = await runTest(
    `clearTimeout(setTimeout(() => {}, 100_000));\n${listen}\nlistener.close();`,
  );
  assertEquals(success, true, output);
});

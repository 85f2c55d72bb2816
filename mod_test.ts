import { assertEquals } from "@std/assert";

Deno.test("a program that takes the client from the entry of everything bundles for runtimes without Node's modules", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const entry = `${folder}/client.ts`;
    const root = new URL("./mod.ts", import.meta.url).href;
    await Deno.writeTextFile(entry, `export { connect, dialWebSocket } from ${JSON.stringify(root)};`);
    const { success, stdout, stderr } = await new Deno.Command("deno", {
      args: ["bundle", "-q", "--platform", "browser", "--external=libsodium", entry],
      cwd: new URL("./", import.meta.url).pathname,
    }).output();
    assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    const text = new TextDecoder().decode(stdout);
    assertEquals(text.match(/^(?:import|export) .*\bfrom "node:.*$/gm) ?? [], []);
    // What a gateway runs is not taken along: were a room of ours imported late, all that it stands on would be.
    assertEquals(text.match(/^\/\/ \S*\/gateway\/(?:run|exchange|node_front)\.ts$/gm) ?? [], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

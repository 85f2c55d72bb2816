import { assertEquals, assertMatch } from "@std/assert";

Deno.test("files, exchange, directories and the HTTP face run in Node, whatever it lacks of newer JavaScript", async () => {
  const folder = await Deno.makeTempDir();
  const run = async (command: string, ...args: string[]): Promise<string> => {
    const cwd = new URL("../", import.meta.url).pathname;
    const { stdout, stderr } = await new Deno.Command(command, { args, cwd }).output();
    assertEquals(new TextDecoder().decode(stderr), "");
    return new TextDecoder().decode(stdout);
  };
  try {
    assertMatch(await run("node", "--version"), /^v\d+/);
    const entry = new URL("./testdata/node.ts", import.meta.url).pathname;
    const externals = ["fs/promises", "path"].map((name) => `--external=node:${name}`);
    await run(
      "deno",
      "bundle",
      "-q",
      "--platform",
      "browser",
      ...externals,
      "-o",
      `${folder}/node.js`,
      entry,
    );
    await Deno.writeTextFile(
      `${folder}/node.mjs`,
      `import { smoke } from "./node.js";
       console.log(JSON.stringify(await smoke(process.argv[2])));`,
    );
    const text = await run("node", "--no-warnings", `${folder}/node.mjs`, `${folder}/blocks`);
    assertEquals(JSON.parse(text), ["file 1000000", "block 200"]);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("skipped: node is not installed");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

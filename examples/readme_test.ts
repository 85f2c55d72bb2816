// The README, the recipes, and what they speak of, held together.
import { assert, assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);
const readme = await Deno.readTextFile(new URL("README.md", root));
const recipes = await Deno.readTextFile(new URL("docs/recipes.md", root));

/** The first cells of the table under a heading, and the code words in them. */
function names(heading: string): string[] {
  const section = readme.split(`## ${heading}\n`)[1]!.split("\n## ")[0]!;
  const cells = section.split("\n").filter((line) => line.startsWith("| ")).map((line) =>
    line.split("|")[1]!
  );
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
}

/** The programs, with what their comments say that they print. */
function programs(page: string): { code: string; prints: string[] }[] {
  return [...page.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code]) => ({
    code: code!,
    prints: [...code!.matchAll(/console\.log\(.*\); \/\/ (.+)$/gm)].map(([, text]) => text!),
  })).filter(({ prints }) => prints.length > 0);
}

for (const { code, prints } of [...programs(readme), ...programs(recipes)]) {
  Deno.test(`README, recipes: a program runs with -N alone and prints what its comments say: ${prints[0]}`, async () => {
    const child = new Deno.Command("deno", {
      args: ["run", "--no-prompt", "--quiet", "-N", "-"],
      cwd: root.pathname,
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(code));
    await writer.close();
    const { code: status, stdout, stderr } = await child.output();
    const lines = new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
    assertEquals([lines, status], [prints, 0], new TextDecoder().decode(stderr));
  });
}

Deno.test("README: three programs, none longer than it promises by much", () => {
  const [echo, app, tickets] = programs(readme);
  for (const program of [echo, app, tickets]) {
    const lines = program!.code.split("\n").filter((line) =>
      line.trim() !== "" && !line.trim().startsWith("//")
    );
    assert(lines.length <= 24, `${lines.length} lines`);
  }
});

Deno.test("README: its links lead to files", async () => {
  for (const name of ["README.md", "SECURITY.md", "docs/recipes.md"]) {
    const page = new URL(name, root);
    for (const [, target] of (await Deno.readTextFile(page)).matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
      assert((await Deno.stat(new URL(target!, page))).isFile, target);
    }
  }
});

Deno.test("recipes: its list names each of them, in order", () => {
  const listed = [...recipes.matchAll(/^- \[(.+)\]\(#(.+)\)$/gm)].map(([, title, anchor]) => [title, anchor]);
  const headings = [...recipes.matchAll(/^## (.+)$/gm)].map(([, title]) => [
    title,
    title!.toLowerCase().replaceAll(/[^a-z0-9 -]/g, "").replaceAll(" ", "-"),
  ]);
  assertEquals(listed, headings);
});

Deno.test("README: exports and dependencies stand in their tables, and nothing else; listed examples exist", async () => {
  const { exports, imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const dependencies = names("Dependencies");
  assertEquals(dependencies.toSorted(), Object.keys(imports).toSorted());

  const exported = Object.keys(exports).filter((name) => name !== ".").map((name) =>
    `@betanet/htx${name.slice(1)}`
  );
  assertEquals(names("What it is").toSorted(), exported.toSorted());

  for (const name of names("Examples")) {
    await Deno.stat(new URL(name.replace(/^(?!examples\/)/, "examples/"), root));
  }
});

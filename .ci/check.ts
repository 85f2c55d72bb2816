/**
 * `deno task check`: everything about the code that can be said without running it, one line a step.
 *
 * @module
 */

interface Step {
  name: string;
  run: () => Promise<{ success: boolean; output: string }>;
}

/** The package's public modules, from `deno.json`. */
async function publicModules(): Promise<string[]> {
  const { exports } = JSON.parse(await Deno.readTextFile("deno.json"));
  return Object.values(exports as Record<string, string>);
}

/** Every module of the checkout but those of folders with a `deno.json` of their own, which has its own imports. */
async function allModules(folder = "."): Promise<string[]> {
  const { workspace } = JSON.parse(await Deno.readTextFile("deno.json"));
  const found: string[] = [];
  async function walk(folder: string): Promise<void> {
    const entries = await Array.fromAsync(Deno.readDir(folder));
    const ownRules = entries.some((e) => e.name === "deno.json") && folder !== "." &&
      !workspace.includes(folder);
    if (ownRules) return;
    for (const entry of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory && !["node_modules", "testdata", ".git", "coverage"].includes(entry.name)) {
        await walk(path);
      } else if (entry.isFile && /\.tsx?$/.test(entry.name)) found.push(path);
    }
  }
  await walk(folder);
  return found;
}

/** Modules that ask for the DOM's types are checked apart: in one program those would replace Deno's own. */
async function modulesByLibrary(): Promise<{ deno: string[]; dom: string[] }> {
  const found: { deno: string[]; dom: string[] } = { deno: [], dom: [] };
  for (const path of await allModules()) {
    const text = await Deno.readTextFile(path);
    found[/^\/\/\/ <reference lib="dom" \/>$/m.test(text) ? "dom" : "deno"].push(path);
  }
  return found;
}

async function deno(...args: string[]): Promise<{ success: boolean; output: string }> {
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args,
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  return { success, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

const steps: Step[] = [
  { name: "format", run: () => deno("fmt", "--check") },
  { name: "lint", run: () => deno("lint", "--quiet") },
  {
    name: "types of every module and example",
    run: async () => deno("check", "--quiet", "--doc", ...(await modulesByLibrary()).deno, "README.md"),
  },
  { name: "types of the page", run: async () => deno("check", "--quiet", ...(await modulesByLibrary()).dom) },
  { name: "documentation of every export", run: async () => deno("doc", "--lint", ...await publicModules()) },
  { name: "publishing", run: () => deno("publish", "--dry-run", "--allow-dirty", "--quiet") },
  {
    name: "no secrets",
    run: () => deno("run", "--allow-read=.", "--allow-run=git", ".ci/secrets.ts", "--history"),
  },
];

let failed = 0;
for (const { name, run } of steps) {
  const start = performance.now();
  const { success, output } = await run();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${success ? "ok  " : "FAIL"}  ${name} (${seconds} s)`);
  if (success) continue;
  failed++;
  console.log(output.trim().replaceAll(/^/gm, "      "));
}
if (failed > 0) Deno.exit(1);

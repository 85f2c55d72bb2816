// The plan of the house, held by tests: imports point down only, a folder is entered through its mod.ts, importing the
// package does nothing, and the portable rooms load where there is no `Deno`.
import { assert, assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);

/** What each room may import besides itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  core: [],
  noise: ["core"],
  tickets: ["core"],
  overlay: ["core"],
  transport: ["noise", "core"],
  bitswap: ["transport", "noise", "core"],
  gateway: ["transport", "noise", "core", "tickets", "overlay"],
};

/** Rooms that browsers, Workers and Node load as they are. */
const PORTABLE = ["core", "noise", "tickets", "overlay"];

interface Import {
  from: string;
  to: string;
}

async function importsOf(room: string): Promise<Import[]> {
  const found: Import[] = [];
  async function walk(folder: URL): Promise<void> {
    const entries = await Array.fromAsync(Deno.readDir(folder));
    if (entries.some((entry) => entry.name === "deno.json")) return; // a package of its own
    for (const entry of entries) {
      if (entry.isDirectory && entry.name !== "testdata") await walk(new URL(`${entry.name}/`, folder));
      if (!entry.isFile || !entry.name.endsWith(".ts")) continue;
      if (entry.name.endsWith("_test.ts") || entry.name.startsWith("_test")) continue;
      const file = new URL(entry.name, folder);
      const code = (await Deno.readTextFile(file)).replaceAll(/\/\*[\s\S]*?\*\//g, "");
      for (const [, specifier] of code.matchAll(/(?:\bfrom|^import|\bimport\()\s*["']([^"'\n]+)["']/gm)) {
        const to = specifier!.startsWith(".")
          ? new URL(specifier!, file).href.slice(root.href.length)
          : specifier!;
        found.push({ from: file.href.slice(root.href.length), to });
      }
    }
  }
  await walk(new URL(`${room}/`, root));
  return found;
}

for (const [room, allowed] of Object.entries(MAY_IMPORT)) {
  Deno.test(`${room}/ imports ${allowed.join(", ") || "no other room"}, through mod.ts`, async () => {
    const wrong = (await importsOf(room)).filter(({ to }) => {
      const other = Object.keys(MAY_IMPORT).find((name) => to.startsWith(`${name}/`));
      if (to === "mod.ts" || /^(?:jsr:)?@betanet\/htx/.test(to)) return true; // the public face, from inside
      if (other === undefined || other === room) return false;
      if (!allowed.includes(other)) return true;
      // `_x.ts` of core is what several rooms share without publishing it; of overlay the gateway needs one part.
      return !/(?:^|\/)mod\.ts$|^core\/_\w+\.ts$|^overlay\/paths\.ts$/.test(to);
    });
    assertEquals(wrong, []);
  });
}

/** The package's public modules that exist, by the names programs import. */
async function exportNames(): Promise<string[]> {
  const { name, exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  return Object.keys(exports).map((path) => path.replace(/^\./, name));
}

/** Runs a module with no permission at all, and gives what it printed and what it asked for. */
async function runBare(code: string): Promise<{ success: boolean; output: string; asked: string[] }> {
  const audit = await Deno.makeTempFile({ prefix: "htx-audit-" });
  try {
    const child = new Deno.Command("deno", {
      args: ["run", "--quiet", "--no-check", "--no-prompt", "-"],
      cwd: root,
      env: { NO_COLOR: "1", DENO_AUDIT_PERMISSIONS: audit },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(code));
    await writer.close();
    const { success, stdout, stderr } = await child.output();
    const asked = (await Deno.readTextFile(audit)).split("\n").filter(Boolean);
    return { success, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr), asked };
  } finally {
    await Deno.remove(audit);
  }
}

Deno.test("importing the package asks for no permission and ends by itself", async () => {
  const code = (await exportNames()).map((name) => `await import(${JSON.stringify(name)});`).join("\n");
  const { success, output, asked } = await runBare(code);
  assert(success, output);
  assertEquals(output, "");
  assertEquals(asked, []);
});

Deno.test("the portable rooms load where there is no Deno", async () => {
  const { name } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const imports = PORTABLE.map((room) => `await import("${name}/${room}");`).join("\n");
  const { success, output } = await runBare(
    `for (const name of ["Deno", "process", "Buffer"]) delete globalThis[name];\nif ("Deno" in globalThis) throw 1;\n${imports}`,
  );
  assert(success, output);
});

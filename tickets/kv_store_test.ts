/** Deno KV needs `--unstable-kv`, so that most of this runs in child processes. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { KvReplayStore } from "./kv_store.ts";

const CHILD = new URL("testdata/kv_child.ts", import.meta.url).pathname;
const ROOT = new URL("..", import.meta.url).pathname;

/** A child under just the permissions that the store needs. */
function spawnChild(directory: string, args: string[]): Deno.ChildProcess {
  const permissions = [`--allow-read=${ROOT},${directory}`, `--allow-write=${directory}`];
  return new Deno.Command("deno", {
    args: ["run", "--no-prompt", "--quiet", "--unstable-kv", ...permissions, CHILD, ...args],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function finish(child: Deno.ChildProcess): Promise<string[]> {
  await child.stdin.close();
  const { success, stdout, stderr } = await child.output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim().split("\n");
}

async function inTempDir(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "htx-kv-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("e-09, e-10: KvReplayStore keeps the contract, in memory and on a file", async () => {
  await inTempDir(async (directory) => {
    const lines = await finish(spawnChild(directory, ["contract", directory]));
    assertEquals(lines.filter((line) => !line.startsWith("ok ")), []);
    assertEquals(lines.length, 6 + 8 + 4);
    for (const line of lines) console.log(line);
  });
});

Deno.test("e-09: two processes on one Deno KV file accept a ticket once between them, 200 copies at once", async () => {
  await inTempDir(async (directory) => {
    const file = `${directory}/tickets.kv`;
    const children = [spawnChild(directory, ["present", file]), spawnChild(directory, ["present", file])];
    const outputs = children.map((child) => child.stdout.getReader());
    const decoder = new TextDecoder();
    for (const output of outputs) assertEquals(decoder.decode((await output.read()).value), "ready\n");
    for (const output of outputs) output.releaseLock();
    for (const child of children) { // both stand ready: go
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("go\n"));
      writer.releaseLock();
    }
    const lines = await Promise.all(children.map(finish));
    const counts = lines.map((output) => JSON.parse(output[0]!) as Record<string, number>);
    assertEquals(counts.reduce((sum, count) => sum + (count.ok ?? 0), 0), 1, JSON.stringify(counts));
    assertEquals(counts.reduce((sum, count) => sum + (count.replayed ?? 0), 0), 199, JSON.stringify(counts));
    // e-10: after both have ended it is still spent
    const again = await finish(spawnChild(directory, ["again", file]));
    assertEquals(again, ["replayed"]);
  });
});

Deno.test("KvReplayStore.close() waits for a close under way, and closes once", async () => {
  const kv = await Deno.openKv(":memory:");
  const { promise: held, resolve: letGo } = Promise.withResolvers<void>();
  const order: string[] = [];
  const slow = new Proxy(kv, {
    get(target, name) {
      // What the sweep begins with.
      if (name === "get") return (key: Deno.KvKey) => held.then(() => target.get(key));
      if (name === "close") order.push("database");
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const store = new KvReplayStore(slow);
  assertEquals(await store.checkAndRecord({ id: "a", hour: 490_555, now: 490_555 * 3_600_000 }), "fresh");
  const closes = [1, 2].map((n) => store.close().then(() => order.push(`close ${n}`)));
  letGo();
  await Promise.all(closes);
  await store.close();
  assertEquals(order, ["database", "close 1", "close 2"]);
});

Deno.test("without Deno KV the store says what to do", async () => {
  const { openKv } = Deno;
  Object.defineProperty(Deno, "openKv", { value: undefined, configurable: true, writable: true });
  try {
    const error = await assertRejects(() => KvReplayStore.open(":memory:"), HtxError);
    assertEquals(error.code, "UNSUPPORTED");
    assert(error.message.includes("--unstable-kv"));
  } finally {
    Object.defineProperty(Deno, "openKv", { value: openKv, configurable: true, writable: true });
  }
});

/** What kv_store_test.ts runs under `--unstable-kv`: `contract DIR`, `present FILE`, `again FILE`. */

import { assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../../core/mod.ts";
import { HOUR, VECTOR } from "../_testing.ts";
import { KvReplayStore } from "../kv_store.ts";
import type { TicketClaim } from "../replay_store.ts";
import { replayStoreContract } from "../testing.ts";
import { TicketVerifier } from "../verifier.ts";

const [command, path = ""] = Deno.args;

switch (command) {
  case "contract":
    await contract(path);
    break;
  case "present":
    await present(path);
    break;
  case "again":
    console.log(await show(await KvReplayStore.open(path)));
    break;
}

async function contract(directory: string): Promise<void> {
  const inMemory = replayStoreContract(() => KvReplayStore.open(":memory:"), { parallel: 1000 });
  const onFile = replayStoreContract((space) => KvReplayStore.open(`${directory}/${space}`), {
    shared: true,
    persistent: true,
  });
  const own = [
    { name: "a full store refuses, and has room again when hours have passed", run: () => full() },
    { name: "what has expired is forgotten, by the clock of the gateways", run: () => forgets() },
    { name: "an hour that any gateway forgot is stale for all", run: () => stale(`${directory}/stale`) },
    { name: "a closed store says so, and closing twice is closing once", run: () => closed() },
  ];
  for (const { name, run } of [...inMemory, ...onFile, ...own]) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`FAILED ${name}: ${error}`);
    }
  }
}

async function present(file: string): Promise<void> {
  const store = await KvReplayStore.open(file);
  console.log("ready");
  await Deno.stdin.read(new Uint8Array(16));
  const verifier = verifierOn(store);
  const results = await Promise.all(Array.from({ length: 100 }, () => verifier.verify(VECTOR.text)));
  const counts: Record<string, number> = {};
  for (const result of results) {
    const outcome = result.ok ? "ok" : result.reason;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  await store.close();
  console.log(JSON.stringify(counts));
}

async function show(store: KvReplayStore): Promise<string> {
  const result = await verifierOn(store).verify(VECTOR.text);
  await store.close();
  return result.ok ? "ok" : result.reason;
}

function verifierOn(replay: KvReplayStore): TicketVerifier {
  return new TicketVerifier({
    keys: [VECTOR.key],
    now: () => VECTOR.now,
    limiter: { take: () => true },
    replay,
    onStoreError: (error) => console.error(error),
  });
}

function claim(id: string, hour: number, now: number = hour * HOUR): TicketClaim {
  return { id, hour, now };
}

async function full(): Promise<void> {
  await using store = await KvReplayStore.open(":memory:", { capacity: 2 });
  const { hour } = VECTOR;
  assertEquals(await store.checkAndRecord(claim("a", hour)), "fresh");
  assertEquals(await store.checkAndRecord(claim("b", hour + 1, hour * HOUR)), "fresh");
  assertEquals(await store.checkAndRecord(claim("c", hour)), "full");
  assertEquals(await store.checkAndRecord(claim("a", hour)), "replayed");
  assertEquals(await store.checkAndRecord(claim("c", hour + 3)), "full");
  assertEquals(await store.checkAndRecord(claim("c", hour + 4)), "fresh"); // a cannot verify any more
}

async function forgets(): Promise<void> {
  const kv = await Deno.openKv(":memory:");
  const store = new KvReplayStore(kv, { prefix: ["p"] });
  const { hour } = VECTOR;
  for (let i = 0; i < 500; i++) await store.checkAndRecord(claim(`${i}`, hour));
  const left = async () => {
    let entries = 0;
    for await (const _ of kv.list({ prefix: ["p", "spent"] })) entries++;
    return entries;
  };
  assertEquals(await left(), 500);
  for (let i = 0; i < 20; i++) {
    await store.checkAndRecord(claim(`x${i}`, hour + 4));
    await new Promise((resolve) => setTimeout(resolve)); // sweeps run beside the calls
  }
  for (let rounds = 0; await left() > 20 && rounds < 100; rounds++) await store.checkAndRecord(claim("x0", hour + 4));
  assertEquals(await left(), 20);
  await store.close();
}

async function stale(file: string): Promise<void> {
  const { hour } = VECTOR;
  await using ahead = await KvReplayStore.open(file);
  await using behind = await KvReplayStore.open(file);
  assertEquals(await behind.checkAndRecord(claim("a", hour)), "fresh");
  assertEquals(await ahead.checkAndRecord(claim("b", hour + 9)), "fresh");
  await ahead.close(); // waits for its sweep
  assertEquals(await behind.checkAndRecord(claim("a", hour)), "stale");
  assertEquals(await behind.checkAndRecord(claim("c", hour)), "stale");
}

async function closed(): Promise<void> {
  const store = await KvReplayStore.open(":memory:");
  await store.close();
  await store.close();
  const error = await assertRejects(() => store.checkAndRecord(claim("a", VECTOR.hour)), HtxError);
  assertEquals(error.code, "CLOSED");
}

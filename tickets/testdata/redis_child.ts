/** What redis_store_test.ts runs with network permission alone: presents the vector's ticket 100 times at once. */

import { VECTOR } from "../_testing.ts";
import { RedisTicketStore } from "../redis_store.ts";
import { TicketVerifier } from "../verifier.ts";

const [url = "", prefix = ""] = Deno.args;
const replay = await RedisTicketStore.connect(url, { prefix });
const verifier = new TicketVerifier({
  keys: [VECTOR.key],
  now: () => VECTOR.now,
  limiter: { take: () => true },
  replay,
  onStoreError: (error) => console.error(error),
});
console.log("ready");
await Deno.stdin.read(new Uint8Array(16));
const counts: Record<string, number> = {};
const shown = Array.from({ length: 100 }, (_, i) => verifier.verify(VECTOR.text, { address: `10.0.${i}.1` }));
for (const result of await Promise.all(shown)) {
  const outcome = result.ok ? "ok" : result.reason;
  counts[outcome] = (counts[outcome] ?? 0) + 1;
}
await replay.close();
console.log(JSON.stringify(counts));

/**
 * Tickets verified in a second, beside the bare key exchange that each takes.
 *
 *     htx_tickets.ts client
 *
 * @module
 */

import { measureVerifier } from "../../tickets/verifier_bench.ts";
import { phase } from "./_role.ts";

await phase("tickets", async () => {
  const { verificationsPerSecond, exchangesPerSecond } = await measureVerifier({ tickets: 500, rounds: 3 });
  return { rps: verificationsPerSecond, bare: exchangesPerSecond };
});
Deno.exit(0);

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Child } from "./_testing.ts";
import { isTracing } from "./tracing.ts";
import { kolmogorovSmirnov, measure } from "./timing.ts";

Deno.test("gateway and upstream of one request show in one trace, without its query", async () => {
  assertEquals(isTracing(), false);
  await using child = new Child(["run", "--quiet", "-N", "gateway/testdata/traced.ts"], {
    OTEL_DENO: "true",
    OTEL_EXPORTER_OTLP_PROTOCOL: "console",
    OTEL_METRIC_EXPORT_INTERVAL: "100",
  });
  assertEquals((await child.status).code, 0);
  await child.line(/^answer true/);
  const text = child.lines.join("\n");
  assertStringIncludes(text, "GET gateway");
  assertStringIncludes(text, "GET upstream");
  assert(!text.includes("secretquery"), text);
  const traces = new Set(
    child.lines.flatMap((line) => /^SPAN GET (?:gateway|upstream) \[([0-9a-f]{32})\//.exec(line)?.[1] ?? []),
  );
  assertStringIncludes(text, "htx.gateway.requests");
  assert(traces.size === 1, text);
});

Deno.test("kolmogorovSmirnov() tells shifted samples apart and equal ones not", () => {
  const even = Array.from({ length: 2000 }, (_, i) => i / 1000);
  assertEquals(kolmogorovSmirnov(even, even), { distance: 0, p: 1 });
  const shifted = kolmogorovSmirnov(even, even.map((one) => one + 0.2));
  assert(Math.abs(shifted.distance - 0.1) < 0.002 && shifted.p < 1e-6, JSON.stringify(shifted));
  const { p } = kolmogorovSmirnov([1, 2, 3, 4], [1.5, 2.5, 3.5]);
  assert(p > 0.9);
});

Deno.test("e-14: the timing measurement runs, and covers every kind", async () => {
  const rows = await measure({ requests: 20 });
  assertEquals(rows.length, 14);
  for (const row of rows) assert(row.median > 0 && row.p >= 0 && row.p <= 1, row.name);
});

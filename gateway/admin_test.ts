import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { adminHandler } from "./admin.ts";
import { over, tell } from "./_testing.ts";

Deno.test("the admin listener: health, readiness, Prometheus text, a page without outside resources", async () => {
  await using g = over(tell, { warm: false });
  const handle = adminHandler(g.gateway);
  const get = async (path: string, init?: RequestInit) => {
    const response = await handle(new Request(`http://127.0.0.1:9${path}`, init));
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  assertEquals((await get("/healthz")).status, 200);
  assertEquals((await get("/readyz")).status, 503);
  await (await g.ask("/x")).text();
  await (await g.ask("/y", { method: "POST", body: "12345" })).text();
  assertEquals((await get("/readyz")).status, 200);
  const { text, headers } = await get("/metrics");
  assertStringIncludes(headers.get("content-type")!, "version=0.0.4");
  assertStringIncludes(text, 'htx_gateway_requests_total{outcome="forwarded"} 2\n');
  assertStringIncludes(text, "htx_gateway_request_bytes_total 5\n");
  assertStringIncludes(text, "htx_gateway_latency_seconds_count 2\n");
  assertStringIncludes(text, 'htx_gateway_upstream_sessions{upstream="in-process"} 1\n');
  for (
    const family of [
      "tickets_total",
      "upstream_rekeys_total",
      "upstream_streams",
      "upstream_handshake_failures_total",
    ]
  ) {
    assertStringIncludes(text, `# TYPE htx_gateway_${family} `);
  }
  for (const line of text.trimEnd().split("\n")) {
    assert(
      /^(?:# (?:HELP|TYPE) [a-z_]+ .+|[a-z_]+(?:\{[a-z]+="[^"]*"\})? [0-9.e+-]+|.*_bucket\{le="[^"]+"\} \d+)$/
        .test(line),
      line,
    );
  }
  const page = await get("/");
  assert(!/(?:src|href)=|https?:\/\/(?!www\.w3\.org)/.test(page.text));
  assertStringIncludes(
    page.headers.get("content-security-policy")!,
    "default-src 'none'; script-src 'sha256-",
  );
  const status = JSON.parse((await get("/status.json")).text);
  assertEquals(status.metrics.outcomes.forwarded, 2);
  assertEquals((await get("/none")).status, 404);
  assertEquals((await get("/metrics", { method: "POST" })).status, 405);
  const rebound = await handle(new Request("http://evil.example/metrics"));
  assertEquals(rebound.status, 403);
  await rebound.body?.cancel();
  for (const [host, status] of [["[::1].evil", 403], ["127.0.0.1:99999", 400]] as const) {
    // As Deno's server hands it out: with a URL that no parser takes.
    const request = new Request("http://127.0.0.1:9/metrics", { headers: { host } });
    Object.defineProperty(request, "url", { value: `http://${host}/metrics` });
    const answer = await handle(request);
    await answer.body?.cancel();
    assertEquals(answer.status, status);
  }
});

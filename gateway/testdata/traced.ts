// A gateway and its upstream in one process with tracing on: one request, then the end.
import { createGateway, localUpstream, withTracing } from "../mod.ts";

await using upstream = localUpstream(withTracing((request) => new Response(String(request.headers.has("traceparent")))));
await using gateway = createGateway({ upstream });
const info = { remoteAddr: undefined, encrypted: false };
const response = await gateway.handler(new Request("http://a.example/path?secretquery=1"), info);
console.log(`answer ${await response.text()}`);
await new Promise((resolve) => setTimeout(resolve, 400)); // the counters are collected every 100 ms

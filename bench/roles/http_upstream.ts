/**
 * The application behind every gateway: 16 bytes, 1 MiB, and how many bytes were posted.
 *
 *     http_upstream.ts plain | htx
 *     http_upstream.ts tls <certificate> <key>
 *
 * @module
 */

import { toHex } from "../../core/mod.ts";
import { serve } from "../../transport/mod.ts";
import { say } from "./_role.ts";

const small = new TextEncoder().encode("0123456789abcdef");
const big = new Uint8Array(2 ** 20).fill(0x78);

async function answer(request: Request): Promise<Response> {
  if (request.method === "POST") return new Response(`${(await request.arrayBuffer()).byteLength}`);
  return new Response(request.url.endsWith("/big") ? big : small);
}

const [kind = "plain", certificate = "", key = ""] = Deno.args;
if (kind === "htx") {
  const server = serve(answer, { onError: () => {} });
  say("READY " + JSON.stringify({ port: server.addr.port, key: toHex(server.publicKey) }));
  await server.finished;
} else {
  const tls = kind === "tls"
    ? { cert: await Deno.readTextFile(certificate), key: await Deno.readTextFile(key) }
    : {};
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {}, ...tls }, answer);
  say("READY " + JSON.stringify({ port: server.addr.port }));
  await server.finished;
}

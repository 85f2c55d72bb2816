/**
 * The least that a gateway over a sealed connection does, by hand: a request has a connection of a pool to itself. A MiB
 * that comes back is collected, which is what Deno's server sends with the fewest steps.
 *
 *     hand_gateway.ts upstream
 *     hand_gateway.ts gateway <json of the upstream's READY line>
 *
 * @module
 */

import { say } from "./_role.ts";
import { FRAME, Sealed } from "./_sealed.ts";

const SMALL = 0;
const BIG = 1;
const POST = 2;
const END = 3;
const small = new TextEncoder().encode("0123456789abcdef");
const big = new Uint8Array(2 ** 20).fill(0x78);
const EMPTY = new Uint8Array(0);

async function answer(sealed: Sealed): Promise<void> {
  for (let frame; (frame = await sealed.frame()) !== undefined;) {
    switch (frame.kind) {
      case SMALL:
        sealed.put(SMALL, small);
        break;
      case BIG:
        for (let at = 0; at < big.length; at += FRAME) {
          if (sealed.full) await sealed.flush();
          sealed.put(BIG, big.subarray(at, at + FRAME));
        }
        break;
      default: {
        let posted = 0;
        for (; frame?.kind === POST; frame = await sealed.frame()) posted += frame.data.length;
        sealed.put(SMALL, new TextEncoder().encode(`${posted}`));
      }
    }
    await sealed.flush();
  }
}

const idle: Sealed[] = [];

async function forward(request: Request, port: number): Promise<Response> {
  const sealed = idle.pop() ?? new Sealed(await Deno.connect({ hostname: "127.0.0.1", port }));
  if (request.body !== null) {
    for await (const chunk of request.body) {
      for (let at = 0; at < chunk.length; at += FRAME) {
        if (sealed.full) await sealed.flush();
        sealed.put(POST, chunk.subarray(at, at + FRAME));
      }
      await sealed.flush();
    }
    sealed.put(END, EMPTY);
  } else {
    sealed.put(request.url.endsWith("/big") ? BIG : SMALL, EMPTY);
  }
  await sealed.flush();
  let frame = await sealed.frame();
  let body = frame?.data;
  if (frame?.kind === BIG) {
    body = new Uint8Array(big.length);
    for (let at = 0; frame !== undefined;) {
      body.set(frame.data, at);
      at += frame.data.length;
      frame = at < body.length ? await sealed.frame() : undefined;
    }
  }
  if (body === undefined) throw new Error("The upstream has gone");
  idle.push(sealed);
  return new Response(body);
}

const [role = "", info = "{}"] = Deno.args;
if (role === "upstream") {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  say("READY " + JSON.stringify({ port: listener.addr.port }));
  for await (const conn of listener) answer(new Sealed(conn)).catch(() => {});
} else {
  const { port } = JSON.parse(info);
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => forward(request, port),
  );
  say("READY " + JSON.stringify({ port: server.addr.port }));
  await server.finished;
}

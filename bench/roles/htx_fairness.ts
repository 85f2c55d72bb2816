/**
 * Small requests on a session: alone, and beside a download that takes all it can get. `small` reads it chunk by chunk and
 * drops the chunks, as most programs do; `smallbyob` reads it into one piece of memory, which leaves the garbage collector
 * nothing to do.
 *
 *     htx_fairness.ts server
 *     htx_fairness.ts client <phases: small,smallbyob> <json of the server's READY line>
 *
 * @module
 */

import { fromHex, toHex } from "../../core/mod.ts";
import { connect, serve } from "../../transport/mod.ts";
import { CHUNK, phase, repeat, say, SECONDS } from "./_role.ts";

/** Reads on and counts, until told to stop. */
async function drop(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  count: (bytes: number) => boolean,
): Promise<void> {
  const reader = body.getReader();
  while (count((await reader.read()).value?.length ?? 0));
  await reader.cancel();
}

/** The same with one piece of memory. */
async function reuse(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  count: (bytes: number) => boolean,
): Promise<void> {
  const reader = body.getReader({ mode: "byob" });
  let memory = new ArrayBuffer(4 * CHUNK);
  for (let going = true; going;) {
    const { value } = await reader.read(new Uint8Array(memory));
    if (value === undefined) return;
    memory = value.buffer;
    going = count(value.length);
  }
  await reader.cancel();
}

const [role, phases = "", info = "{}"] = Deno.args;
if (role === "server") {
  const chunk = new Uint8Array(CHUNK);
  const server = serve((request) => {
    if (!request.url.endsWith("/endless")) return new Response("0123456789abcdef");
    return new Response(
      new ReadableStream<Uint8Array<ArrayBuffer>>({ pull: (controller) => controller.enqueue(chunk) }),
    );
  }, { onError: () => {} });
  say("READY " + JSON.stringify({ port: server.addr.port, key: toHex(server.publicKey) }));
  await server.finished;
} else {
  const { port, key } = JSON.parse(info);
  const client = await connect({ hostname: "127.0.0.1", port }, { remoteStatic: fromHex(key) });
  const once = async () => {
    await (await client.fetch("/small")).bytes();
  };
  await repeat(500, 1, once);
  const beside = (name: string, read: typeof drop) =>
    phase(name, async () => {
      const alone = await repeat(SECONDS * 500, 1, once);
      const download = await client.fetch("/endless");
      let [bytes, going] = [0, true];
      const reading = read(download.body!, (length) => {
        bytes += length;
        return going;
      });
      await repeat(100, 1, once); // the window has grown by then
      bytes = 0;
      const start = performance.now();
      const beside = await repeat(SECONDS * 1000, 1, once);
      const MBps = bytes / (performance.now() - start) / 1000;
      going = false;
      await reading;
      return {
        aloneP50us: alone.p50us!,
        aloneP99us: alone.p99us!,
        besideP50us: beside.p50us!,
        besideP99us: beside.p99us!,
        p50Ratio: beside.p50us! / alone.p50us!,
        p99Ratio: beside.p99us! / alone.p99us!,
        downloadMBps: MBps,
      };
    });
  for (const name of phases.split(",")) await beside(name, name === "small" ? drop : reuse);
  Deno.exit(0);
}

/**
 * This library's side of the session benchmarks: bulk, echo, streams, dials over TCP on loopback.
 *
 *     deno run -A bench/roles/htx_session.ts server
 *     deno run -A bench/roles/htx_session.ts client <phases> <json of the server's READY line>
 *
 * Protocol on stdout: `READY <json>` (server), `START <phase>` and `END <phase> <json>` (client).
 *
 * @module
 */

import { fromHex, type HtxStream, toHex } from "../../core/mod.ts";
import { KeyPair } from "../../noise/mod.ts";
import { connectDuplex, dialTcp, serveStreams } from "../../transport/mod.ts";

const [role, phases = "", info = "{}"] = Deno.args;
const TOTAL = Number(Deno.env.get("TOTAL") ?? 2 ** 30);
const SECS = Number(Deno.env.get("SECS") ?? 2);
const CHUNK = 65_536;
/** Bytes of the memory that a bulk phase is read into. */
const SINK = 262_144;
const MESSAGE = 64;
const DEPTH = 64;

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
}

async function answer(stream: HtxStream): Promise<void> {
  const first = await stream.read();
  if (first === null) return;
  if (first[0] === 0x42) {
    const into = new Uint8Array(SINK);
    return await sink(stream, first.length - 1, () => stream.readInto(into));
  }
  if (first[0] === 0x53) {
    const reader = stream.readable.getReader({ mode: "byob" });
    let buffer = new ArrayBuffer(SINK);
    return await sink(stream, first.length - 1, async () => {
      const { value } = await reader.read(new Uint8Array(buffer));
      if (value === undefined) return null;
      buffer = value.buffer;
      return value.length || null;
    });
  }
  if (first.length > 1) {
    await stream.write(first.subarray(1), { end: stream.receiveEnded && stream.receivedBytes === 0 });
  }
  for (;;) {
    const chunk = await stream.read();
    if (chunk === null) return await stream.closeWrite();
    await stream.write(chunk, { end: stream.receiveEnded && stream.receivedBytes === 0 });
    if (stream.receiveEnded && stream.receivedBytes === 0) return;
  }
}

async function sink(stream: HtxStream, already: number, read: () => Promise<number | null>): Promise<void> {
  for (let got = already; got < TOTAL;) {
    const length = await read();
    if (length === null) return;
    got += length;
  }
  await stream.write(new Uint8Array(1), { end: true });
}

if (role === "server") {
  const server = serveStreams(answer, { onError: () => {} });
  say("READY " + JSON.stringify({ port: server.addr.port, key: toHex(server.publicKey) }));
  await server.finished;
} else {
  const { port, key } = JSON.parse(info);
  const remoteStatic = fromHex(key);
  const keyPair = KeyPair.generate();
  const dial = (postQuantum: "require" | "off" = "off") =>
    connectDuplex(dialTcp({ port }), { remoteStatic, keyPair, postQuantum });
  const payload = crypto.getRandomValues(new Uint8Array(CHUNK));
  const message = new Uint8Array(MESSAGE);
  const quantile = (values: number[], q: number) => values[Math.floor((values.length - 1) * q)]! * 1000;
  const stats = (latencies: number[], secs: number) => {
    latencies.sort((a, b) => a - b);
    return {
      rps: latencies.length / secs,
      p50us: quantile(latencies, 0.5),
      p99us: quantile(latencies, 0.99),
    };
  };
  for (const phase of phases.split(",")) {
    if (phase === "dialclose" || phase === "dialclosehybrid") {
      // The server's CLOSE, sealed with its keys, proves that both sides were through.
      const once = async () => {
        const connection = await dial(phase === "dialclose" ? "off" : "require");
        await connection.close();
      };
      for (let i = 0; i < 20; i++) await once();
      say("START " + phase);
      let n = 0;
      const t0 = performance.now();
      for (; performance.now() - t0 < SECS * 1000; n++) await once();
      say(`END ${phase} ` + JSON.stringify({ rps: n / (performance.now() - t0) * 1000 }));
      continue;
    }
    const connection = await dial("require");
    if (phase === "bulk" || phase === "bulkstreams") {
      const stream = await connection.createBidirectionalStream();
      const mark = new Uint8Array([phase === "bulk" ? 0x42 : 0x53]);
      let secs: number;
      if (phase === "bulk") {
        await stream.write(mark);
        say("START " + phase);
        const t0 = performance.now();
        for (let n = 0; n < TOTAL; n += CHUNK) await stream.write(payload);
        await stream.read();
        secs = (performance.now() - t0) / 1000;
      } else {
        const writer = stream.writable.getWriter();
        await writer.write(mark);
        say("START " + phase);
        const t0 = performance.now();
        for (let n = 0; n < TOTAL; n += CHUNK) {
          await writer.ready;
          writer.write(payload).catch(() => {}); // told by `ready` and the read
        }
        await stream.readable.getReader().read();
        secs = (performance.now() - t0) / 1000;
      }
      say(`END ${phase} ` + JSON.stringify({ MBps: TOTAL / secs / 1e6, secs, ...connection.stats }));
    } else if (phase === "echo1") {
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array([0x45]));
      const once = async () => {
        await stream.write(message);
        for (let n = 0; n < MESSAGE;) n += (await stream.read())!.length;
      };
      for (let i = 0; i < 500; i++) await once();
      const latencies: number[] = [];
      say("START echo1");
      const t0 = performance.now();
      for (let t = t0; t - t0 < SECS * 1000;) {
        await once();
        const u = performance.now();
        latencies.push(u - t);
        t = u;
      }
      say("END echo1 " + JSON.stringify(stats(latencies, SECS)));
    } else if (phase === "echo64each") {
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array([0x45]));
      let done = 0;
      let part = 0;
      const step = async () => {
        part += (await stream.read())!.length;
        while (part >= MESSAGE) {
          part -= MESSAGE;
          done++;
          await stream.write(message); // 64 outstanding, each its own write
        }
      };
      for (let i = 0; i < DEPTH; i++) await stream.write(message);
      for (let i = 0; i < 500; i++) await step();
      say("START echo64each");
      done = 0;
      const t0 = performance.now();
      while (performance.now() - t0 < SECS * 1000) await step();
      say("END echo64each " + JSON.stringify({ rps: done / (performance.now() - t0) * 1000 }));
    } else if (phase === "stream1" || phase === "stream64") {
      const request = new Uint8Array(1 + MESSAGE);
      request[0] = 0x45;
      const once = async () => {
        const stream = await connection.createBidirectionalStream();
        await stream.write(request, { end: true });
        for (let n = 0; n < MESSAGE;) n += (await stream.read())!.length;
        while (await stream.read() !== null);
      };
      const go = async (ms: number) => {
        const latencies: number[] = [];
        const t0 = performance.now();
        const worker = async () => {
          while (performance.now() < t0 + ms) {
            const t = performance.now();
            await once();
            latencies.push(performance.now() - t);
          }
        };
        await Promise.all(Array.from({ length: phase === "stream1" ? 1 : DEPTH }, worker));
        return stats(latencies, (performance.now() - t0) / 1000);
      };
      await go(300);
      say("START " + phase);
      say(`END ${phase} ` + JSON.stringify(await go(SECS * 1000)));
    }
    await connection.close();
  }
  if (Deno.env.get("PROF") === undefined) Deno.exit(0);
}

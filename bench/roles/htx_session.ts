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
import { CHUNK, DEPTH, MESSAGE, phase, repeat, say, SECONDS, TOTAL } from "./_role.ts";

const [role, phases = "", info = "{}"] = Deno.args;
/** Bytes of the memory that a bulk phase is read into. */
const SINK = 262_144;

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
  for (const name of phases.split(",")) {
    if (name === "dialclose" || name === "dialclosehybrid") {
      // The server's CLOSE, sealed with its keys, proves that both sides were through.
      const once = async () => {
        const connection = await dial(name === "dialclose" ? "off" : "require");
        await connection.close();
      };
      for (let i = 0; i < 20; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
      continue;
    }
    const connection = await dial("require");
    const rate = (start: number) => ({ MBps: TOTAL / (performance.now() - start) / 1000 });
    if (name === "bulk") {
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array([0x42]));
      await phase(name, async () => {
        const start = performance.now();
        for (let sent = 0; sent < TOTAL; sent += CHUNK) await stream.write(payload);
        await stream.read();
        return rate(start);
      });
    } else if (name === "bulkstreams") {
      const stream = await connection.createBidirectionalStream();
      const writer = stream.writable.getWriter();
      await writer.write(new Uint8Array([0x53]));
      await phase(name, async () => {
        const start = performance.now();
        for (let sent = 0; sent < TOTAL; sent += CHUNK) {
          await writer.ready;
          writer.write(payload).catch(() => {}); // told by `ready` and the read
        }
        await stream.readable.getReader().read();
        return rate(start);
      });
    } else if (name === "echo1") {
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array([0x45]));
      const once = async () => {
        await stream.write(message);
        for (let n = 0; n < MESSAGE;) n += (await stream.read())!.length;
      };
      for (let i = 0; i < 500; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
    } else if (name === "echo64each") {
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
      await phase(name, async () => {
        done = 0;
        const start = performance.now();
        while (performance.now() - start < SECONDS * 1000) await step();
        return { rps: done / (performance.now() - start) * 1000 };
      });
    } else if (name === "stream1" || name === "stream64") {
      const request = new Uint8Array(1 + MESSAGE);
      request[0] = 0x45;
      const once = async () => {
        const stream = await connection.createBidirectionalStream();
        await stream.write(request, { end: true });
        for (let n = 0; n < MESSAGE;) n += (await stream.read())!.length;
        while (await stream.read() !== null);
      };
      const workers = name === "stream1" ? 1 : DEPTH;
      await repeat(300, workers, once);
      await phase(name, () => repeat(SECONDS * 1000, workers, once));
    }
    await connection.close();
  }
  Deno.exit(0);
}

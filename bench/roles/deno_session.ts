/**
 * Deno's own sockets as peers: `tcp`, `tls`, and `aead`, which is what a short program does by hand: frames of 64 KiB
 * sealed with node:crypto's ChaCha20-Poly1305, each its own write.
 *
 *     deno_session.ts server <kind> <certificate> <key>
 *     deno_session.ts client <kind> <certificate> <phases> <json of the server's READY line>
 *
 * The first byte of a connection says what follows: `B` bulk, answered with a byte once all of it is there; `E` echo.
 *
 * @module
 */

import { createCipheriv, createDecipheriv } from "node:crypto";
import { CHUNK, DEPTH, MESSAGE, phase, repeat, say, SECONDS, TOTAL } from "./_role.ts";
import { nextNonce, readFull, writeAll } from "./_sockets.ts";

const BULK = 0x42;
const ECHO = 0x45;
const TAG = 16;
const HEADER = 3;
const key = new Uint8Array(32).fill(7);

function seal(plaintext: Uint8Array, nonce: Uint8Array, out: Uint8Array): void {
  const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: TAG });
  const length = plaintext.length + TAG;
  out[0] = length >>> 16;
  out[1] = length >>> 8;
  out[2] = length;
  out.set(cipher.update(plaintext), HEADER);
  cipher.final();
  out.set(cipher.getAuthTag(), HEADER + plaintext.length);
  nextNonce(nonce);
}

function open(sealed: Uint8Array, nonce: Uint8Array): Uint8Array {
  const decipher = createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: TAG });
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG));
  const plaintext = decipher.update(sealed.subarray(0, sealed.length - TAG));
  decipher.final();
  nextNonce(nonce);
  return plaintext;
}

async function countSealed(conn: Deno.Conn): Promise<void> {
  const nonce = new Uint8Array(12);
  const buffer = new Uint8Array(2 ** 20);
  for (let [got, held] = [0, 0]; got < TOTAL;) {
    const read = await conn.read(buffer.subarray(held));
    if (read === null) return;
    held += read;
    let at = 0;
    while (held - at >= HEADER) {
      const length = buffer[at]! << 16 | buffer[at + 1]! << 8 | buffer[at + 2]!;
      if (held - at < HEADER + length) break;
      got += open(buffer.subarray(at + HEADER, at + HEADER + length), nonce).length;
      at += HEADER + length;
    }
    buffer.copyWithin(0, at, held);
    held -= at;
  }
}

async function answer(conn: Deno.Conn, kind: string): Promise<void> {
  const mark = new Uint8Array(1);
  if (!await readFull(conn, mark)) return;
  const buffer = new Uint8Array(65_536);
  if (mark[0] === ECHO) {
    for (let read; (read = await conn.read(buffer)) !== null;) await writeAll(conn, buffer.subarray(0, read));
    return;
  }
  if (kind === "aead") await countSealed(conn);
  else {
    for (let got = 0; got < TOTAL;) {
      const read = await conn.read(buffer);
      if (read === null) return;
      got += read;
    }
  }
  await writeAll(conn, mark);
}

async function serve(kind: string, certificate: string, privateKey: string): Promise<void> {
  const at = { hostname: "127.0.0.1", port: 0 };
  const listener = kind === "tls"
    ? Deno.listenTls({
      ...at,
      cert: await Deno.readTextFile(certificate),
      key: await Deno.readTextFile(privateKey),
    })
    : Deno.listen(at);
  say("READY " + JSON.stringify({ port: (listener.addr as Deno.NetAddr).port }));
  for await (const conn of listener) {
    if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
    answer(conn, kind).catch(() => {}).finally(() => {
      try {
        conn.close();
      } catch { /* the client was first */ }
    });
  }
}

async function measure(kind: string, certificate: string, phases: string, info: string): Promise<void> {
  const { port } = JSON.parse(info);
  const ca = kind === "tls" ? [await Deno.readTextFile(certificate)] : [];
  const dial = async (mark: number): Promise<Deno.Conn> => {
    const tcp = await Deno.connect({ hostname: "127.0.0.1", port });
    tcp.setNoDelay(true);
    const conn = kind === "tls" ? await Deno.startTls(tcp, { hostname: "127.0.0.1", caCerts: ca }) : tcp;
    await writeAll(conn, new Uint8Array([mark]));
    return conn;
  };
  const message = new Uint8Array(MESSAGE);
  for (const name of phases.split(",")) {
    if (name === "bulk") {
      const conn = await dial(BULK);
      const payload = crypto.getRandomValues(new Uint8Array(CHUNK));
      const sealed = new Uint8Array(HEADER + CHUNK + TAG);
      const nonce = new Uint8Array(12);
      await phase(name, async () => {
        const start = performance.now();
        for (let sent = 0; sent < TOTAL; sent += CHUNK) {
          if (kind === "aead") seal(payload, nonce, sealed);
          await writeAll(conn, kind === "aead" ? sealed : payload);
        }
        await readFull(conn, new Uint8Array(1));
        return { MBps: TOTAL / (performance.now() - start) / 1000 };
      });
      conn.close();
    } else if (name === "echo1") {
      const conn = await dial(ECHO);
      const back = new Uint8Array(MESSAGE);
      const once = async () => {
        await writeAll(conn, message);
        await readFull(conn, back);
      };
      await repeat(200, 1, once);
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
      conn.close();
    } else if (name === "echo64each") {
      const conn = await dial(ECHO);
      const buffer = new Uint8Array(65_536);
      for (let i = 0; i < DEPTH; i++) await writeAll(conn, message);
      let part = 0;
      const run = async (ms: number) => {
        let done = 0;
        const start = performance.now();
        while (performance.now() < start + ms) {
          part += await conn.read(buffer) ?? 0;
          for (; part >= MESSAGE; part -= MESSAGE, done++) await writeAll(conn, message);
        }
        return { rps: done / (performance.now() - start) * 1000 };
      };
      await run(200);
      await phase(name, () => run(SECONDS * 1000));
      conn.close();
    } else if (name === "dialclose") {
      const once = async () => {
        const conn = await dial(ECHO);
        await writeAll(conn, message.subarray(0, 1));
        await readFull(conn, new Uint8Array(1));
        conn.close();
      };
      for (let i = 0; i < 10; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
    } else if (name === "connections") {
      const count = Number(Deno.env.get("CONNECTIONS") ?? 1000);
      const conns = [await dial(ECHO)];
      const settle = async () => {
        for (let i = 0; i < 3; i++) {
          await new Promise((resolve) => setTimeout(resolve, 150));
          (globalThis as { gc?: () => void }).gc?.();
        }
      };
      await settle();
      await phase(name, async () => {
        while (conns.length <= count) conns.push(await dial(ECHO));
        await settle();
        return { count };
      });
      for (const conn of conns) conn.close();
    }
  }
  Deno.exit(0);
}

const [role = "", kind = "tcp", certificate = "", third = "", info = "{}"] = Deno.args;
if (role === "server") await serve(kind, certificate, third);
else await measure(kind, certificate, third, info);

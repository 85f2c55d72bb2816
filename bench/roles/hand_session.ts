/**
 * The least that an echo over a session and a handshake do, by hand.
 *
 * `echo1` seals and opens each message, and has a loop that reads ahead and hands over to who waits by a promise, as
 * whatever has more than one stream must. `dialclose` is a connection with the three messages of XK and an answer, and
 * the six X25519 of it; no hash, no cipher, no session.
 *
 *     hand_session.ts server
 *     hand_session.ts client <phases> <json of the server's READY line>
 *
 * @module
 */

import { type DhPrivateKey, selectCrypto } from "../../core/mod.ts";
import { MESSAGE, phase, repeat, say, SECONDS } from "./_role.ts";
import { Sealed, type SealedFrame } from "./_sealed.ts";
import { readFull, writeAll } from "./_sockets.ts";

const backend = selectCrypto();
/** Lengths of the messages of XK without payloads. */
const LENGTHS = [48, 48, 64] as const;
const KEY = 32;

async function receive(conn: Deno.Conn, length: number): Promise<Uint8Array> {
  const message = new Uint8Array(length);
  if (!await readFull(conn, message)) throw new Error("The peer has gone");
  return message;
}

/** A message with a public key at its start; the rest of it is what tags would take. */
function message(publicKey: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(publicKey);
  return bytes;
}

async function dial(port: number, local: DhPrivateKey, remote: Uint8Array): Promise<void> {
  const connecting = Deno.connect({ hostname: "127.0.0.1", port });
  const ephemeral = backend.x25519(); // made while the system connects
  ephemeral.dh(remote);
  const conn = await connecting;
  conn.setNoDelay(true);
  await writeAll(conn, message(ephemeral.publicKey, LENGTHS[0]));
  const theirs = (await receive(conn, LENGTHS[1])).subarray(0, KEY);
  ephemeral.dh(theirs);
  local.dh(theirs);
  await writeAll(conn, message(local.publicKey, LENGTHS[2]));
  await receive(conn, 1);
  conn.close();
}

async function accept(conn: Deno.TcpConn, local: DhPrivateKey): Promise<void> {
  conn.setNoDelay(true);
  const theirs = (await receive(conn, LENGTHS[0])).subarray(0, KEY);
  local.dh(theirs);
  const ephemeral = backend.x25519();
  ephemeral.dh(theirs);
  await writeAll(conn, message(ephemeral.publicKey, LENGTHS[1]));
  ephemeral.dh((await receive(conn, LENGTHS[2])).subarray(0, KEY));
  await writeAll(conn, new Uint8Array(1));
  conn.close();
}

async function echo(sealed: Sealed): Promise<void> {
  const messages = new HandedOver(sealed);
  for (let frame; (frame = await messages.next()) !== undefined;) {
    sealed.put(0, frame.data);
    await sealed.flush();
  }
}

/** Reads ahead, and hands over to who waits. */
class HandedOver {
  readonly #queue: SealedFrame[] = [];
  #waiting: ((frame: SealedFrame | undefined) => void) | undefined;
  #ended = false;

  constructor(sealed: Sealed) {
    this.#read(sealed).catch(() => {}).finally(() => {
      this.#ended = true;
      this.#waiting?.(undefined);
    });
  }

  async #read(sealed: Sealed): Promise<void> {
    for (let frame; (frame = await sealed.frame()) !== undefined;) {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) this.#queue.push(frame);
      else waiting(frame);
    }
  }

  next(): Promise<SealedFrame | undefined> {
    const frame = this.#queue.shift();
    if (frame !== undefined || this.#ended) return Promise.resolve(frame);
    return new Promise((resolve) => this.#waiting = resolve);
  }
}

async function serve(): Promise<void> {
  const local = backend.x25519();
  const echoes = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const handshakes = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const ports = { echo: echoes.addr.port, handshake: handshakes.addr.port, key: [...local.publicKey] };
  say("READY " + JSON.stringify(ports));
  const accepting = async () => {
    for await (const conn of handshakes) accept(conn, local).catch(() => {});
  };
  accepting();
  for await (const conn of echoes) echo(new Sealed(conn)).catch(() => {});
}

async function measure(phases: string, info: string): Promise<void> {
  const ports: { echo: number; handshake: number; key: number[] } = JSON.parse(info);
  for (const name of phases.split(",")) {
    if (name === "echo1") {
      const sealed = new Sealed(await Deno.connect({ hostname: "127.0.0.1", port: ports.echo }));
      const messages = new HandedOver(sealed);
      const payload = new Uint8Array(MESSAGE);
      const once = async () => {
        sealed.put(0, payload);
        await sealed.flush();
        await messages.next();
      };
      for (let i = 0; i < 500; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
      sealed.close();
    } else if (name === "dialclose") {
      const local = backend.x25519();
      const remote = new Uint8Array(ports.key);
      const once = () => dial(ports.handshake, local, remote);
      for (let i = 0; i < 20; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
    }
  }
  Deno.exit(0);
}

const [role = "", phases = "", info = "{}"] = Deno.args;
if (role === "server") await serve();
else await measure(phases, info);

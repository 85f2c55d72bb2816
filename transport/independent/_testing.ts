/**
 * Another implementation of HTX 1.1, written from its text and sharing no code with the rest of this package: raw
 * sockets, `node:crypto`, and ML-KEM from @noble/post-quantum. It does what a test tells it to, right or wrong. For
 * tests only.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  randomBytes,
} from "node:crypto";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";

/** Types of frames. */
export const STREAM = 0, PING = 1, CLOSE = 2, KEY_UPDATE = 3, WINDOW_UPDATE = 4, STREAM_END = 5;

/** Bytes of text. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Text of bytes. */
export function text(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}

/** The parts, joined. */
export function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A QUIC varint, in `length` bytes where given. */
export function varint(
  value: number,
  length = value < 64 ? 1 : value < 16_384 ? 2 : value < 2 ** 30 ? 4 : 8,
) {
  const out = new Uint8Array(length);
  let rest = BigInt(value);
  for (let i = length - 1; i >= 0; i--, rest >>= 8n) out[i] = Number(rest & 0xffn);
  out[0]! |= [0, 0, 0x40, 0, 0x80, 0, 0, 0, 0xc0][length]!;
  return out;
}

/** The varint at `at`, and the index past it. */
export function unvarint(data: Uint8Array, at = 0): [value: number, next: number] {
  const length = 1 << (data[at]! >> 6);
  let value = BigInt(data[at]! & 0x3f);
  for (let i = 1; i < length; i++) value = value << 8n | BigInt(data[at + i]!);
  return [Number(value), at + length];
}

/** `length ‖ text` of RFC 9292. */
export function field(value: string): Uint8Array {
  return join(varint(value.length), bytes(value));
}

// ------------------------------------------------------------------ Noise

const PKCS8 = "302e020100300506032b656e04220420";
const SPKI = "302a300506032b656e032100";
const NOTHING = new Uint8Array(0);

/** An X25519 key. */
export class Key {
  readonly secret: Uint8Array;
  readonly open: Uint8Array;

  constructor(secret: Uint8Array = new Uint8Array(randomBytes(32))) {
    this.secret = secret;
    const der = createPublicKey(this.#object()).export({ format: "der", type: "spki" });
    this.open = new Uint8Array(der.subarray(der.length - 32));
  }

  #object() {
    const key = Buffer.concat([Buffer.from(PKCS8, "hex"), this.secret]);
    return createPrivateKey({ key, format: "der", type: "pkcs8" });
  }

  with(other: Uint8Array): Uint8Array {
    const key = Buffer.concat([Buffer.from(SPKI, "hex"), other]);
    const publicKey = createPublicKey({ key, format: "der", type: "spki" });
    return new Uint8Array(diffieHellman({ privateKey: this.#object(), publicKey }));
  }
}

function hmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac("sha256", key).update(data).digest());
}

function hkdf(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", ikm, salt, info, length));
}

function seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad, { plaintextLength: plaintext.length });
  return join(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
}

function open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array {
  const length = sealed.length - 16;
  const cipher = createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad, { plaintextLength: length });
  cipher.setAuthTag(sealed.subarray(length));
  return join(cipher.update(sealed.subarray(0, length)), cipher.final());
}

class Noise {
  h: Uint8Array;
  ck: Uint8Array;
  #k: Uint8Array = NOTHING;
  #n = 0;

  constructor(hybrid: boolean, responder: Uint8Array) {
    const name = bytes(
      hybrid ? "Noise_XKhfs_25519+MLKEM768_ChaChaPoly_SHA256" : "Noise_XK_25519_ChaChaPoly_SHA256",
    );
    this.h = name.length <= 32
      ? join(name, new Uint8Array(32 - name.length))
      : new Uint8Array(createHash("sha256").update(name).digest());
    this.ck = this.h;
    this.mixHash(bytes("betanet-htx/1.1"));
    this.mixHash(responder);
  }

  mixHash(data: Uint8Array): void {
    this.h = new Uint8Array(createHash("sha256").update(this.h).update(data).digest());
  }

  mixKey(data: Uint8Array): void {
    const prk = hmac(this.ck, data);
    this.ck = hmac(prk, new Uint8Array([1]));
    this.#k = hmac(prk, join(this.ck, new Uint8Array([2])));
    this.#n = 0;
  }

  #nonce(): Uint8Array {
    const nonce = new Uint8Array(12);
    nonce[4] = this.#n++;
    return nonce;
  }

  seal(plaintext: Uint8Array): Uint8Array {
    const sealed = seal(this.#k, this.#nonce(), this.h, plaintext);
    this.mixHash(sealed);
    return sealed;
  }

  open(sealed: Uint8Array): Uint8Array {
    const plaintext = open(this.#k, this.#nonce(), this.h, sealed);
    this.mixHash(sealed);
    return plaintext;
  }

  /** K0c, K0s and h. */
  keys(): { client: Uint8Array; server: Uint8Array; h: Uint8Array } {
    const prk = hmac(this.ck, NOTHING);
    const k1 = hmac(prk, new Uint8Array([1]));
    const k2 = hmac(prk, join(k1, new Uint8Array([2])));
    const label = bytes("tls13 htx inner v1");
    const info = join(new Uint8Array([0, 64, label.length]), label, new Uint8Array([0]));
    const k0 = hkdf(join(k1, k2), this.h, info, 64);
    return { client: k0.slice(0, 32), server: k0.slice(32), h: this.h };
  }
}

// ------------------------------------------------------------------ sockets

/** A socket, read by counts of bytes. */
export class Wire {
  readonly conn: Deno.TcpConn;
  /** Bytes of one write: 1 sends every byte by itself. */
  writeSize = Infinity;
  #held: Uint8Array = NOTHING;

  constructor(conn: Deno.TcpConn) {
    this.conn = conn;
    conn.setNoDelay(true);
  }

  async send(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length;) {
      at += await this.conn.write(data.subarray(at, Math.min(data.length, at + this.writeSize)));
    }
  }

  /** Exactly `length` bytes; `undefined` at the end. */
  async take(length: number): Promise<Uint8Array | undefined> {
    const parts = [this.#held];
    let have = this.#held.length;
    while (have < length) {
      const into = new Uint8Array(65_536);
      const read = await this.conn.read(into).catch(() => null);
      if (read === null) return undefined;
      parts.push(into.subarray(0, read));
      have += read;
    }
    const all = parts.length === 1 ? this.#held : join(...parts);
    this.#held = all.subarray(length);
    return all.slice(0, length);
  }

  async sendMessage(message: Uint8Array): Promise<void> {
    await this.send(join(new Uint8Array([message.length >> 8, message.length & 255]), message));
  }

  async takeMessage(): Promise<Uint8Array> {
    const prefix = await this.take(2);
    const message = prefix && await this.take(prefix[0]! << 8 | prefix[1]!);
    if (message === undefined) {
      this.close();
      throw new Error("the peer ended in its handshake");
    }
    return message;
  }

  close(): void {
    try {
      this.conn.close();
    } catch {
      // closed before
    }
  }
}

// ------------------------------------------------------------------ the peer

/** A frame that was opened. */
export interface Received {
  type: number;
  id: number | undefined;
  data: Uint8Array;
}

class Direction {
  secret: Uint8Array;
  counter = 0;
  readonly #h: Uint8Array;
  readonly #half: 0 | 1;

  constructor(secret: Uint8Array, h: Uint8Array, half: 0 | 1) {
    this.secret = secret;
    this.#h = h;
    this.#half = half;
  }

  nonce(): Uint8Array {
    const nonce = hkdf(this.secret, bytes("ns"), NOTHING, 12);
    for (let i = 0, n = this.counter; i < 8; i++, n = Math.floor(n / 256)) nonce[i]! ^= n % 256;
    return nonce;
  }

  next(): void {
    this.secret = hkdf(this.secret, bytes("next"), this.#h, 64).slice(32 * this.#half, 32 * this.#half + 32);
    this.counter = 0;
  }
}

/** The other implementation, past its handshake. */
export class Peer {
  readonly wire: Wire;
  readonly #out: Direction;
  readonly #in: Direction;
  /** KEY_UPDATEs received. */
  updates = 0;
  /** What the peer's windows still take, by stream. */
  readonly windows: Map<number, number> = new Map();

  constructor(wire: Wire, role: "client" | "server", keys: ReturnType<Noise["keys"]>) {
    this.wire = wire;
    const up = new Direction(keys.client, keys.h, 0);
    const down = new Direction(keys.server, keys.h, 1);
    [this.#out, this.#in] = role === "client" ? [up, down] : [down, up];
  }

  /** Dials and shakes hands. */
  static async connect(
    port: number,
    server: Uint8Array,
    options: { hybrid?: boolean; key?: Key; writeSize?: number } = {},
  ): Promise<Peer> {
    const { hybrid = false, key = new Key(), writeSize = Infinity } = options;
    const wire = new Wire(await Deno.connect({ hostname: "127.0.0.1", port }));
    wire.writeSize = writeSize;
    const noise = new Noise(hybrid, server);
    const e = new Key();
    noise.mixHash(e.open);
    noise.mixKey(e.with(server));
    const kem = hybrid ? ml_kem768.keygen() : undefined;
    await wire.sendMessage(join(e.open, kem ? noise.seal(kem.publicKey) : NOTHING, noise.seal(NOTHING)));

    const answer = await wire.takeMessage();
    const re = answer.slice(0, 32);
    noise.mixHash(re);
    noise.mixKey(e.with(re));
    if (kem) noise.mixKey(ml_kem768.decapsulate(noise.open(answer.slice(32, 32 + 1104)), kem.secretKey));
    noise.open(answer.slice(kem ? 32 + 1104 : 32));

    const s = noise.seal(key.open);
    noise.mixKey(key.with(re));
    await wire.sendMessage(join(s, noise.seal(NOTHING)));
    return new Peer(wire, "client", noise.keys());
  }

  /** Answers a handshake of either form. */
  static async accept(conn: Deno.TcpConn, key: Key, options: { writeSize?: number } = {}): Promise<Peer> {
    const wire = new Wire(conn);
    wire.writeSize = options.writeSize ?? Infinity;
    const hello = await wire.takeMessage();
    const hybrid = hello.length === 1248;
    const noise = new Noise(hybrid, key.open);
    const re = hello.slice(0, 32);
    noise.mixHash(re);
    noise.mixKey(key.with(re));
    const kemKey = hybrid ? noise.open(hello.slice(32, 32 + 1200)) : undefined;
    noise.open(hello.slice(hybrid ? 32 + 1200 : 32));

    const e = new Key();
    noise.mixHash(e.open);
    noise.mixKey(e.with(re));
    let sealed: Uint8Array = NOTHING;
    if (kemKey) {
      const { cipherText, sharedSecret } = ml_kem768.encapsulate(kemKey);
      sealed = noise.seal(cipherText);
      noise.mixKey(sharedSecret);
    }
    await wire.sendMessage(join(e.open, sealed, noise.seal(NOTHING)));

    const last = await wire.takeMessage();
    const rs = noise.open(last.slice(0, 48));
    noise.mixKey(e.with(rs));
    noise.open(last.slice(48));
    return new Peer(wire, "server", noise.keys());
  }

  /** A sealed frame; `idLength` spells the stream id longer than need be. */
  frame(type: number, id: number | undefined, data: Uint8Array = NOTHING, idLength?: number): Uint8Array {
    const header = join(
      new Uint8Array([data.length >> 16, data.length >> 8, data.length, type]),
      id === undefined ? NOTHING : idLength === undefined ? varint(id) : varint(id, idLength),
    );
    const sealed = seal(this.#out.secret, this.#out.nonce(), header, data);
    this.#out.counter++;
    if (type === KEY_UPDATE) this.#out.next();
    return join(header, sealed);
  }

  async send(
    type: number,
    id?: number,
    data: Uint8Array | string = NOTHING,
    idLength?: number,
  ): Promise<void> {
    await this.wire.send(this.frame(type, id, typeof data === "string" ? bytes(data) : data, idLength));
  }

  async close(code?: number, id = 0, reason = ""): Promise<void> {
    await this.send(
      CLOSE,
      undefined,
      code === undefined ? NOTHING : join(varint(code), varint(id), bytes(reason)),
    );
  }

  /** The next frame that is no KEY_UPDATE; `undefined` at the end. */
  async next(): Promise<Received | undefined> {
    for (;;) {
      const fixed = await this.wire.take(4);
      if (fixed === undefined) return undefined;
      const length = fixed[0]! << 16 | fixed[1]! << 8 | fixed[2]!;
      const type = fixed[3]!;
      let header = fixed;
      let id: number | undefined;
      if (type === STREAM || type === WINDOW_UPDATE || type === STREAM_END) {
        const first = await this.wire.take(1);
        const more = first && await this.wire.take((1 << (first[0]! >> 6)) - 1);
        if (more === undefined) return undefined;
        header = join(fixed, first!, more);
        id = unvarint(header, 4)[0];
      }
      const sealed = await this.wire.take(length + 16);
      if (sealed === undefined) return undefined;
      const data = open(this.#in.secret, this.#in.nonce(), header, sealed);
      this.#in.counter++;
      if (type === KEY_UPDATE) {
        this.#in.next();
        this.updates++;
        continue;
      }
      if (type === WINDOW_UPDATE) this.windows.set(id!, this.window(id!) + unvarint(data)[0]);
      return { type, id, data };
    }
  }

  /** What the other side's window of a stream takes, by what it said. */
  window(id: number): number {
    return this.windows.get(id) ?? 65_535;
  }

  /** The next frame for `id` that is no WINDOW_UPDATE, or the CLOSE of the session. */
  async nextOf(id: number): Promise<Received | undefined> {
    for (;;) {
      const frame = await this.next();
      if (frame === undefined || frame.type === CLOSE) return frame;
      if (frame.id === id && frame.type !== WINDOW_UPDATE) return frame;
    }
  }

  /** All data of a stream to its end; gives credit for what it reads unless told otherwise. */
  async readAll(id: number, options: { credit?: boolean } = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (;;) {
      const frame = await this.nextOf(id);
      if (frame === undefined || frame.type === CLOSE) {
        throw new Error(`stream ${id} was cut off: ${frame && describe(frame)}`);
      }
      parts.push(frame.data);
      if (frame.type === STREAM_END || frame.data.length === 0) return join(...parts);
      if (options.credit ?? true) await this.send(WINDOW_UPDATE, id, varint(frame.data.length));
    }
  }

  /** What the other side ends the session or a stream with: `[code, stream id]`. */
  async nextClose(): Promise<[code: number, id: number] | "EOF"> {
    for (;;) {
      const frame = await this.next();
      if (frame === undefined) return "EOF";
      if (frame.type === CLOSE) return closeOf(frame);
    }
  }
}

/** Code and stream id of a CLOSE. */
export function closeOf({ data }: Received): [code: number, id: number] {
  if (data.length === 0) return [0, 0];
  const [code, next] = unvarint(data);
  return [code, unvarint(data, next)[0]];
}

function describe(frame: Received): string {
  return frame.type === CLOSE ? `CLOSE ${closeOf(frame)}` : `type ${frame.type}`;
}

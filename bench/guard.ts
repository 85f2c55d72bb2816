/**
 * A report for CI: what the library costs beside what it is made of, both measured in this process in turns, so that
 * the machine cancels out. It prints ratios and judges nothing: a machine that is busy proves nothing.
 *
 *     deno run bench/guard.ts [rounds, 5]
 *
 * @module
 */

import { type Bytes, type HtxConnection, type HtxStream, selectCrypto } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import {
  acceptDuplex,
  connectDuplex,
  fetchOverStream,
  memoryDuplexPair,
  serveHttpStream,
} from "../transport/mod.ts";
import { generateTicketKey, makeTicket, MemoryReplayStore, TicketVerifier } from "../tickets/mod.ts";
import { short, spreadOf } from "./report.ts";

const MEBIBYTE = 2 ** 20;
const FRAME = 65_535;
const TAG = 16;
const BUDGET_MS = 60;

const backend = selectCrypto();
const aead = backend.chacha20Poly1305(new Uint8Array(32).fill(1));
const nonce = new Uint8Array(12);
const header = new Uint8Array(8);

/** Bytes through the cipher and back, and nothing else. */
function sealAndOpen(plaintext: Uint8Array, sealed: Bytes): void {
  aead.seal(nonce, header, plaintext, sealed, 0);
  if (aead.open(nonce, header, sealed) === undefined) throw new Error("does not open");
}

/** Microseconds a turn, for some milliseconds. */
async function time(once: () => void | Promise<void>): Promise<number> {
  let turns = 0;
  const start = performance.now();
  let now = start;
  for (; now - start < BUDGET_MS; turns++) {
    await once();
    now = performance.now();
  }
  return (now - start) * 1000 / turns;
}

interface Ratio {
  readonly name: string;
  readonly reference: string;
  readonly work: () => void | Promise<void>;
  readonly bare: () => void | Promise<void>;
}

async function pair(onStream: (stream: HtxStream) => Promise<void>): Promise<HtxConnection> {
  const [near, far] = memoryDuplexPair();
  const keyPair = KeyPair.generate();
  const [client] = await Promise.all([
    connectDuplex(near, { remoteStatic: keyPair.publicKey, postQuantum: "off" }),
    acceptDuplex(far, { keyPair, onStream }),
  ]);
  return client;
}

async function echo(stream: HtxStream): Promise<void> {
  for (let chunk; (chunk = await stream.read()) !== null;) if (chunk.length <= 64) await stream.write(chunk);
  await stream.closeWrite();
}

async function ratios(): Promise<Ratio[]> {
  const client = await pair(echo);
  const http = await pair((stream) => serveHttpStream(stream, () => new Response("0123456789abcdef")));
  const line = await client.createBidirectionalStream();
  const message = new Uint8Array(64);
  const sealedMessage = new Uint8Array(64 + TAG);
  const data = new Uint8Array(MEBIBYTE);
  const sealedFrame = new Uint8Array(FRAME + TAG);
  const own = backend.x25519();
  const peer = backend.x25519().publicKey;
  const serverKey = KeyPair.generate();
  const clientKey = KeyPair.generate();
  const ticketKey = generateTicketKey();
  const verifier = new TicketVerifier({
    keys: [ticketKey],
    replay: new MemoryReplayStore(),
    limiter: { take: () => true },
  });
  const dh = () => void own.dh(peer);
  const smallFrames = () => {
    sealAndOpen(message, sealedMessage);
    sealAndOpen(message, sealedMessage);
  };
  return [
    {
      name: "a MiB through a session in memory",
      reference: "sealing and opening it",
      work: async () => {
        const stream = await client.createBidirectionalStream();
        await stream.write(data, { end: true });
        while (await stream.read() !== null);
      },
      bare: () => {
        for (let at = 0; at < MEBIBYTE; at += FRAME) {
          const plaintext = data.subarray(at, at + FRAME);
          sealAndOpen(plaintext, sealedFrame.subarray(0, plaintext.length + TAG));
        }
      },
    },
    {
      name: "an echo of 64 B in memory",
      reference: "two seals and two opens",
      work: async () => {
        await line.write(message);
        await line.read();
      },
      bare: smallFrames,
    },
    {
      name: "a GET through a session in memory",
      reference: "two seals and two opens",
      work: async () => {
        const stream = await http.createBidirectionalStream();
        await (await fetchOverStream(stream, new Request("http://app.example/"))).bytes();
      },
      bare: smallFrames,
    },
    {
      name: "a classic handshake, both sides",
      reference: "an X25519",
      work: async () => {
        const [near, far] = memoryDuplexPair();
        const ends = await Promise.all([
          connectDuplex(near, { remoteStatic: serverKey.publicKey, keyPair: clientKey, postQuantum: "off" }),
          acceptDuplex(far, { keyPair: serverKey }),
        ]);
        for (const end of ends) end.abort();
      },
      bare: dh,
    },
    {
      name: "a ticket made and verified",
      reference: "an X25519",
      work: async () => {
        if (!(await verifier.verify(makeTicket(ticketKey), { address: "192.0.2.1" })).ok) {
          throw new Error("refused");
        }
      },
      bare: dh,
    },
  ];
}

if (import.meta.main) {
  const rounds = Number(Deno.args[0] ?? 5);
  const list = await ratios();
  for (const { work, bare } of list) { // warm up
    await time(work);
    await time(bare);
  }
  const found = list.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, { work, bare }] of list.entries()) found[i]!.push(await time(work) / await time(bare));
  }
  for (const [i, { name, reference }] of list.entries()) {
    const { median, min, max } = spreadOf(found[i]!);
    console.log(
      `${name.padEnd(36)} ${short(median).padStart(6)} times ${reference.padEnd(26)} [${short(min)} … ${
        short(max)
      }]`,
    );
  }
  Deno.exit(0);
}

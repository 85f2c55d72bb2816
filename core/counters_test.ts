// What the engine does for a MiB and for a message, exactly: seals, writes, credits, bytes copied to gather. A change
// here is a change of speed that no clock had to be asked about; where it is meant, these figures are changed with it.
import { assertEquals } from "@std/assert";
import { assertAllocations } from "./_test_heap.ts";
import type { HtxConnection, HtxStream } from "./mod.ts";
import { countedPair, type Counts } from "./testdata/counted.ts";
import type { Allocations } from "./testdata/allocated.ts";

const MEBIBYTE = 2 ** 20;
const CHUNK = 65_536;
/** A frame holds at most 65 535 bytes, and so does the window: a MiB takes 17, and credit for the first 16. */
const FRAMES = 17;

async function drain(stream: HtxStream): Promise<void> {
  while (await stream.read() !== null);
  await stream.closeWrite();
}

async function echo(stream: HtxStream): Promise<void> {
  for (let chunk; (chunk = await stream.read()) !== null;) {
    await stream.write(chunk, { end: stream.receiveEnded && stream.receivedBytes === 0 });
    if (stream.receiveEnded && stream.receivedBytes === 0) return;
  }
  await stream.closeWrite();
}

async function readAll(stream: HtxStream): Promise<void> {
  while (await stream.read() !== null);
}

/** What one side did, as a line. */
function line({ seals, opens, writes, credits, gathered }: Counts): string {
  return `${seals} sealed, ${opens} opened, ${writes} written, ${credits} credits, ${gathered} B gathered`;
}

/** Runs `work` once to warm up, then counts it. */
async function count(
  handler: (stream: HtxStream) => Promise<void>,
  work: (client: HtxConnection) => Promise<void>,
): Promise<{ client: string; server: string }> {
  await using pair = countedPair(handler);
  await work(pair.client);
  const { client, server } = await pair.count(() => work(pair.client));
  // Nothing is sealed that is not opened, and the other way about.
  assertEquals([client.opens, server.opens], [server.seals, client.seals]);
  return { client: line(client), server: line(server) };
}

Deno.test("a MiB in one write is sealed where it lies: 17 frames, 17 writes, no copy", async () => {
  const data = new Uint8Array(MEBIBYTE);
  const counts = await count(drain, async (client) => {
    const stream = await client.createBidirectionalStream();
    await stream.write(data, { end: true });
    await readAll(stream);
  });
  assertEquals(counts, {
    client: `${FRAMES} sealed, 17 opened, 17 written, 0 credits, 0 B gathered`,
    server: `17 sealed, ${FRAMES} opened, 17 written, 16 credits, 0 B gathered`,
  });
});

Deno.test("a MiB in writes of 64 KiB takes no more frames: what a frame leaves over rides in the next", async () => {
  const data = new Uint8Array(CHUNK);
  const counts = await count(drain, async (client) => {
    const stream = await client.createBidirectionalStream();
    for (let at = CHUNK; at <= MEBIBYTE; at += CHUNK) await stream.write(data, { end: at === MEBIBYTE });
    await readAll(stream);
  });
  assertEquals(counts, {
    client: `${FRAMES} sealed, 17 opened, 17 written, 0 credits, 0 B gathered`,
    server: `17 sealed, ${FRAMES} opened, 17 written, 16 credits, 0 B gathered`,
  });
});

Deno.test("a MiB through writable costs the engine what it costs without", async () => {
  const data = new Uint8Array(CHUNK);
  const counts = await count(drain, async (client) => {
    const stream = await client.createBidirectionalStream();
    const writer = stream.writable.getWriter();
    for (let at = 0; at < MEBIBYTE; at += CHUNK) {
      await writer.ready;
      writer.write(data).catch(() => {}); // told by `close`
    }
    await writer.close();
    await readAll(stream);
  });
  assertEquals(counts, {
    client: `${FRAMES} sealed, 17 opened, 17 written, 0 credits, 0 B gathered`,
    server: `17 sealed, ${FRAMES} opened, 17 written, 16 credits, 0 B gathered`,
  });
});

const ONE = "1 sealed, 1 opened, 1 written, 0 credits, 0 B gathered";

Deno.test("a message and its echo are a frame and a write each way", async () => {
  await using pair = countedPair(echo);
  const message = new Uint8Array(64);
  const stream = await pair.client.createBidirectionalStream();
  const once = async () => {
    await stream.write(message);
    await stream.read();
  };
  await once();
  const { client, server } = await pair.count(once);
  assertEquals([line(client), line(server)], [ONE, ONE]);
});

Deno.test("64 messages written on one occasion are one frame and one write", async () => {
  await using pair = countedPair(echo);
  const message = new Uint8Array(64);
  const stream = await pair.client.createBidirectionalStream();
  const { client, server } = await pair.count(async () => {
    for (let i = 0; i < 64; i++) await stream.write(message);
    for (let got = 0; got < 64 * 64;) got += (await stream.read())!.length;
  });
  assertEquals([line(client), line(server)], [
    "1 sealed, 1 opened, 1 written, 0 credits, 4096 B gathered",
    "1 sealed, 1 opened, 1 written, 0 credits, 0 B gathered",
  ]);
});

Deno.test("a request on a stream of its own is a frame and a write each way: open, data and end ride together", async () => {
  const message = new Uint8Array(64);
  const counts = await count(echo, async (client) => {
    const stream = await client.createBidirectionalStream();
    await stream.write(message, { end: true });
    await readAll(stream);
  });
  assertEquals(counts, { client: ONE, server: ONE });
});

Deno.test("64 requests at a time are 64 frames in one write each way", async () => {
  const message = new Uint8Array(64);
  const counts = await count(echo, async (client) => {
    await Promise.all(Array.from({ length: 64 }, async () => {
      const stream = await client.createBidirectionalStream();
      await stream.write(message, { end: true });
      await readAll(stream);
    }));
  });
  const all = "64 sealed, 64 opened, 1 written, 0 credits, 0 B gathered";
  assertEquals(counts, { client: all, server: all });
});

Deno.test("a reset is one frame, and what is reset is not answered", async () => {
  const { client, server } = await count(() => new Promise(() => {}), async (client) => {
    const stream = await client.createBidirectionalStream();
    await stream.write(new Uint8Array(64));
    await client.ping();
    stream.reset();
    await client.ping();
  });
  // Stream, PING; CLOSE of the stream and PING in one write; the answers.
  assertEquals([client, server], [
    "4 sealed, 2 opened, 2 written, 0 credits, 0 B gathered",
    "2 sealed, 4 opened, 2 written, 0 credits, 0 B gathered",
  ]);
});

/** Bytes that V8 allocated, recorded on the V8 of `V8_OF_RECORD`. */
const RECORDED: Record<keyof Allocations, number> = {
  perMebibyte: 380_000,
  perEcho: 19_700,
  perRequest: 21_700,
};

Deno.test("what V8 allocates for a MiB, an echo and a request is within 10 % of the record", async () => {
  await assertAllocations(new URL("testdata/allocated.ts", import.meta.url).href, RECORDED);
});

// What an HTTP exchange costs the engine, exactly: seals and writes for a request and its response. A change here is a
// change of speed that no clock had to be asked about; where it is meant, these figures are changed with it.
import { assertEquals } from "@std/assert";
import { assertAllocations } from "../../core/_test_heap.ts";
import { countedPair, type Counts } from "../../core/testdata/counted.ts";
import { fetchOverStream, serveHttpStream } from "./mod.ts";
import type { HttpAllocations } from "./testdata/allocated.ts";

const MEBIBYTE = 2 ** 20;

function line({ seals, writes, credits, gathered }: Counts): string {
  return `${seals} sealed, ${writes} written, ${credits} credits, ${gathered} B gathered`;
}

/** What `request` costs both sides, after one to warm up. */
async function count(
  handler: (request: Request) => Response | Promise<Response>,
  request: () => Request,
): Promise<{ client: string; server: string }> {
  await using pair = countedPair((stream) => serveHttpStream(stream, handler));
  const once = async () => {
    const response = await fetchOverStream(await pair.client.createBidirectionalStream(), request());
    await response.bytes();
  };
  await once();
  const { client, server } = await pair.count(once);
  assertEquals([client.opens, server.opens], [server.seals, client.seals]);
  return { client: line(client), server: line(server) };
}

const ONE = "1 sealed, 1 written, 0 credits, 0 B gathered";
const get = () => new Request("http://app.example/path?query");

Deno.test("a GET and its small answer are a frame and a write each way", async () => {
  assertEquals(await count(() => new Response("0123456789abcdef"), get), { client: ONE, server: ONE });
});

Deno.test("a small POST rides in one frame with its head", async () => {
  const post = () => new Request("http://app.example/", { method: "POST", body: "0123456789abcdef" });
  const counts = await count(async (request) => new Response(await request.text()), post);
  assertEquals(counts, { client: ONE, server: ONE });
});

Deno.test("a redirect and an empty answer are a frame and a write each way", async () => {
  assertEquals(await count(() => Response.redirect("http://app.example/there"), get), {
    client: ONE,
    server: ONE,
  });
  assertEquals(await count(() => new Response(null, { status: 204 }), get), { client: ONE, server: ONE });
});

Deno.test("content of up to 8 KiB rides in one frame with its head, both ways", async () => {
  const content = new Uint8Array(8192);
  const post = () => new Request("http://app.example/", { method: "POST", body: content });
  assertEquals(await count(async (request) => new Response(await request.bytes()), post), {
    client: ONE,
    server: ONE,
  });
});

/** A MiB in chunks of 64 KiB. */
function streamed(): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunk = new Uint8Array(65_536);
  let left = MEBIBYTE / chunk.length;
  return new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(chunk);
      else controller.close();
    },
  });
}

// 65 535 bytes a frame: a MiB with its head takes 17. The clock stands still, so that windows stay at 64 KiB.
/** What comes as a stream is copied behind its head; what is there whole stays where it is, but for the first frame. */
const DATA = {
  streamed: "17 sealed, 17 written, 0 credits, 0 B gathered",
  whole: "17 sealed, 17 written, 0 credits, 65535 B gathered",
};
const CREDIT = "17 sealed, 17 written, 16 credits, 0 B gathered";

Deno.test("a GET of a MiB takes 17 frames, and no copy to gather them but of the first, which has the head before the content", async () => {
  const whole = new Uint8Array(MEBIBYTE);
  for (const [how, body] of [["whole", () => whole], ["streamed", streamed]] as const) {
    assertEquals(await count(() => new Response(body()), get), { client: CREDIT, server: DATA[how] });
  }
});

Deno.test("a POST of a MiB takes 17 frames, and no copy to gather them but of the first, which has the head before the content", async () => {
  const whole = new Uint8Array(MEBIBYTE);
  for (const [how, body] of [["whole", () => whole], ["streamed", streamed]] as const) {
    const post = () => new Request("http://app.example/", { method: "POST", body: body() });
    const counts = await count(async (request) => new Response(`${(await request.bytes()).length}`), post);
    assertEquals(counts, { client: DATA[how], server: CREDIT });
  }
});

/** Bytes that V8 allocated, recorded on the V8 of `V8_OF_RECORD`. */
const RECORDED: Record<keyof HttpAllocations, number> = { perGet: 47_700, perPostedMebibyte: 438_000 };

Deno.test("what V8 allocates for a GET and for a MiB that is posted is within 10 % of the record", async () => {
  await assertAllocations(new URL("testdata/allocated.ts", import.meta.url).href, RECORDED);
});

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type ByteSource, byteStream } from "./_byte_stream.ts";
import { concat } from "./bytes.ts";

/** A source of what it is told, and what became of it. */
class Told implements ByteSource {
  readonly cancelled: unknown[] = [];
  reads = 0;
  #waiting: (() => void) | undefined;
  readonly #chunks: (Uint8Array<ArrayBuffer> | null | Error)[] = [];

  tell(chunk: Uint8Array<ArrayBuffer> | null | Error): void {
    this.#chunks.push(chunk);
    this.#waiting?.();
  }

  tryRead() {
    this.reads++;
    const chunk = this.#chunks[0];
    if (chunk instanceof Error) throw chunk;
    if (chunk) this.#chunks.shift();
    return chunk;
  }

  tryReadInto(into: Uint8Array) {
    const chunk = this.tryRead();
    if (!chunk) return chunk;
    const part = chunk.subarray(0, into.length);
    into.set(part);
    if (part.length < chunk.length) this.#chunks.unshift(chunk.subarray(part.length));
    return part.length;
  }

  arrival() {
    return new Promise<void>((resolve) => this.#waiting = resolve);
  }

  cancel(reason: unknown) {
    this.cancelled.push(reason);
  }
}

/** Lets everything run that does not wait for a timer. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

const bytes = (...values: number[]) => new Uint8Array(values);

Deno.test("byteStream() reads nothing before somebody reads from it, and nothing ahead of them", async () => {
  const source = new Told();
  const reader = byteStream(source).getReader();
  source.tell(bytes(1));
  source.tell(bytes(2));
  await settled();
  assertEquals(source.reads, 0);
  assertEquals((await reader.read()).value, bytes(1));
  await settled();
  assertEquals(source.reads, 1);
});

Deno.test("byteStream() gives each of several reads that wait its chunk, and the end to those behind", async () => {
  const source = new Told();
  const reader = byteStream(source).getReader();
  const reads = [reader.read(), reader.read(), reader.read(), reader.read()];
  await settled();
  for (const told of [bytes(1), bytes(2), null]) {
    source.tell(told);
    await settled();
  }
  assertEquals((await Promise.all(reads)).map(({ value }) => value), [
    bytes(1),
    bytes(2),
    undefined,
    undefined,
  ]);
});

Deno.test("byteStream() hands a failure to who reads, whether it waits or comes later", async () => {
  for (const mode of [undefined, "byob"] as const) {
    for (const waits of [true, false]) {
      const source = new Told();
      const stream = byteStream(source);
      const read = () =>
        mode === undefined ? stream.getReader().read() : stream.getReader({ mode }).read(new Uint8Array(4));
      if (!waits) source.tell(new Error("broke"));
      const failed = assertRejects(read, Error, "broke");
      await settled();
      if (waits) source.tell(new Error("broke"));
      await failed;
    }
  }
});

Deno.test("byteStream() tells its source that nobody wants the rest, with a BYOB read waiting, too", async () => {
  const source = new Told();
  const stream = byteStream(source);
  const reader = stream.getReader({ mode: "byob" });
  const waiting = reader.read(new Uint8Array(4));
  await settled();
  await reader.cancel("enough");
  assertEquals([(await waiting).done, source.cancelled], [true, ["enough"]]);
  source.tell(bytes(1)); // which must harm nobody
  await settled();
});

Deno.test("byteStream() gives what came for a BYOB reader that was released to whoever reads next", async () => {
  for (const next of [undefined, "byob"] as const) {
    for (const end of [false, true]) {
      const source = new Told();
      const stream = byteStream(source);
      const first = stream.getReader({ mode: "byob" });
      const lost = assertRejects(() => first.read(new Uint8Array(2)), TypeError);
      await settled();
      first.releaseLock();
      await lost;
      const read = () =>
        next === undefined
          ? stream.getReader().read()
          : stream.getReader({ mode: next }).read(new Uint8Array(9));
      const reading = read();
      await settled();
      if (!end) source.tell(bytes(1, 2, 3));
      source.tell(null);
      const { done, value } = await reading;
      assertEquals([done, [...value ?? []]], end ? [true, []] : [false, [1, 2, 3]]);
    }
  }
});

Deno.test("without byte streams, as in Safari before 26, byteStream() takes default readers and behaves alike", async () => {
  const Native = ReadableStream;
  const Older = new Proxy(Native, {
    construct(target, [source, ...others]) {
      if (source?.type === "bytes") throw new TypeError("no byte streams here");
      return Reflect.construct(target, [source, ...others]);
    },
  });
  Object.assign(globalThis, { ReadableStream: Older });
  let older: typeof byteStream;
  try {
    ({ byteStream: older } = await import("./_byte_stream.ts?older"));
  } finally {
    Object.assign(globalThis, { ReadableStream: Native });
  }
  const source = new Told();
  const stream = older(source);
  assertThrows(() => stream.getReader({ mode: "byob" }), TypeError);
  await settled();
  assertEquals(source.reads, 0);
  const collected = Array.fromAsync(stream);
  for (const told of [bytes(1), bytes(2, 3), null]) {
    source.tell(told);
    await settled();
  }
  assertEquals(concat(...await collected), bytes(1, 2, 3));
  const other = new Told();
  const failed = assertRejects(() => Array.fromAsync(older(other)), Error, "broke");
  await settled();
  other.tell(new Error("broke"));
  await failed;
  const given = new Told();
  await older(given).cancel("enough");
  assertEquals(given.cancelled, ["enough"]);
});

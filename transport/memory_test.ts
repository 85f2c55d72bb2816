import { assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { memoryDuplexPair } from "./memory.ts";

Deno.test("memoryDuplexPair(): an end that is closed waits for nothing any more, and what it wrote before arrives", async () => {
  const [here, there] = memoryDuplexPair({ highWaterMark: 1 });
  await here.io!.write(new Uint8Array([1, 2]));
  const reading = assertRejects(() => here.io!.read(new Uint8Array(8)), HtxError, "closed");
  const writing = assertRejects(() => here.io!.write(new Uint8Array([3])), HtxError, "closed");
  here.io!.close();
  await reading;
  await writing;
  const into = new Uint8Array(8);
  assertEquals([await there.io!.read(into), await there.io!.read(into)], [2, null]);
  await assertRejects(() => there.io!.write(new Uint8Array(1)), HtxError, "closed");
});

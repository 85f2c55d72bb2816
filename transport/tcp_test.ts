import { assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { dialTcp } from "./tcp.ts";

Deno.test("dialTcp() gives up in time on a host that does not answer, and gives its signal's reason", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  // Nobody is accepted: the system answers until the queue is full, in which those that left still are.
  const error = await assertRejects(async () => {
    for (;;) (await dialTcp({ port }, { timeoutMs: 100 })).close!();
  }, HtxError);
  assertEquals(error.code, "CONNECT_FAILED");
  assertEquals(error.message, `Cannot connect to 127.0.0.1:${port}: no answer within 100 ms`);

  const controller = new AbortController();
  const { signal } = controller;
  const dialling = assertRejects(() => dialTcp({ port }, { signal }), RangeError, "enough");
  controller.abort(new RangeError("enough"));
  await dialling;
  await assertRejects(() => dialTcp({ port }, { signal }), RangeError, "enough");
});

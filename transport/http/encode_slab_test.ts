import { assertEquals } from "@std/assert";
import { encodeHttpResponse } from "./encode.ts";
import { HttpMessageDecoder } from "./decode.ts";

Deno.test("messages come out whole wherever the encoder's memory runs out under them", () => {
  for (let i = 0; i < 4000; i++) {
    const value = "v".repeat(i % 97);
    const decoder = new HttpMessageDecoder("response");
    decoder.push(encodeHttpResponse({ status: 200, fields: [["x-a", value], ["x-b", "2"]] }));
    decoder.end();
    assertEquals(decoder.next(), {
      type: "response",
      head: { status: 200, fields: [["x-a", value], ["x-b", "2"]] },
    });
  }
});

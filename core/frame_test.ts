import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { concat, fromHex, toHex } from "./bytes.ts";
import { HtxError } from "./errors.ts";
import {
  decodeFrame,
  encodeFrame,
  type Frame,
  FrameDecoderStream,
  FrameEncoderStream,
  FrameType,
  MAX_FRAME_LENGTH,
  MAX_PLAINTEXT_LENGTH,
  TAG_LENGTH,
} from "./frame.ts";

const TAG = "f0".repeat(16);

/** Frames as they stand on the wire, each with what it says. */
const FRAMES: [string, Frame][] = [
  [`000005000101020304ff${TAG}`, { type: 0, streamId: 1, sealed: fromHex(`01020304ff${TAG}`) }],
  [`00000001${TAG}`, { type: 1, sealed: fromHex(TAG) }],
  [`00000202aabb${TAG}`, { type: 2, sealed: fromHex(`aabb${TAG}`) }],
  [`00000003${TAG}`, { type: 3, sealed: fromHex(TAG) }],
  [`000002044141aabb${TAG}`, { type: 4, streamId: 321, sealed: fromHex(`aabb${TAG}`) }],
  [`0000000580010000${TAG}`, { type: 5, streamId: 65_536, sealed: fromHex(TAG) }],
  [`00000000c01fffffffffffff${TAG}`, { type: 0, streamId: 2 ** 53 - 1, sealed: fromHex(TAG) }],
  [`000001ff77${TAG}`, { type: 255, sealed: fromHex(`77${TAG}`) }],
];

function bare(
  { type, streamId, sealed }: Frame,
): { type: number; streamId: number | undefined; sealed: string } {
  return { type, streamId, sealed: toHex(sealed) };
}

const arbitraryFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constantFrom(0 as const, 4 as const, 5 as const),
    streamId: fc.maxSafeNat(),
    sealed: fc.uint8Array({ minLength: 16, maxLength: 400 }),
  }),
  fc.record({
    type: fc.constantFrom(1, 2, 3, 6, 255),
    sealed: fc.uint8Array({ minLength: 16, maxLength: 400 }),
  }),
);

Deno.test("every constant of the wire is what HTX 1.1 §3 says", () => {
  assertEquals(FrameType, { STREAM: 0, PING: 1, CLOSE: 2, KEY_UPDATE: 3, WINDOW_UPDATE: 4, STREAM_END: 5 });
  assertEquals([MAX_PLAINTEXT_LENGTH, TAG_LENGTH, MAX_FRAME_LENGTH], [65_535, 16, 65_563]);
});

Deno.test("encodeFrame() and decodeFrame() agree with the frames written out", () => {
  for (const [hex, frame] of FRAMES) {
    assertEquals(toHex(encodeFrame(frame)), hex);
    const decoded = decodeFrame(fromHex(hex))!;
    assertEquals([bare(decoded.frame), decoded.length], [bare(frame), hex.length / 2]);
    assertEquals(toHex(encodeFrame(decoded.frame)), hex);
  }
});

Deno.test("decodeFrame() asks for more at every prefix of a good frame", () => {
  for (const [hex] of FRAMES) {
    const bytes = fromHex(hex);
    for (let n = 0; n < bytes.length; n++) assertEquals(decodeFrame(bytes.subarray(0, n)), undefined);
  }
});

Deno.test("decodeFrame() reads a subarray at an odd offset and keeps a header that is not minimal", () => {
  const bytes = fromHex(`ffffff0000000040 01${TAG}ff`.replace(" ", ""));
  const decoded = decodeFrame(bytes.subarray(3, bytes.length - 1))!;
  assertEquals(decoded.frame.streamId, 1);
  assertEquals(toHex(encodeFrame(decoded.frame)), `000000004001${TAG}`);
});

Deno.test("decodeFrame() rejects a length above the limit at its third byte, not before", () => {
  assertEquals(decodeFrame(fromHex("0100")), undefined);
  for (const hex of ["010000", "ffffff"]) {
    assertEquals(assertThrows(() => decodeFrame(fromHex(hex)), HtxError).code, "FRAME_TOO_LARGE");
  }
  assertEquals(decodeFrame(fromHex("00ffff")), undefined);
});

Deno.test("decodeFrame() rejects a stream id above 2^53-1", () => {
  const bytes = fromHex(`00000000c020000000000000${TAG}`);
  assertEquals(assertThrows(() => decodeFrame(bytes), HtxError).field, "stream_id");
});

Deno.test("encodeFrame() rejects what cannot be written", () => {
  const sealed = new Uint8Array(16);
  for (
    const frame of [
      { type: 256, sealed },
      { type: -1, sealed },
      { type: 1, sealed: new Uint8Array(15) },
      { type: 1, sealed: new Uint8Array(MAX_PLAINTEXT_LENGTH + 17) },
      { type: 0 as const, streamId: -1, sealed },
      { type: 0 as const, streamId: 2 ** 53, sealed },
    ]
  ) assertThrows(() => encodeFrame(frame), RangeError);
});

Deno.test('random bytes give a frame, "more" or an HtxError, and what parses encodes to the same bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        const decoded = decodeFrame(bytes);
        if (decoded !== undefined) assertEquals(encodeFrame(decoded.frame), bytes.slice(0, decoded.length));
      } catch (error) {
        assertInstanceOf(error, HtxError);
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("FrameDecoderStream gives the same frames for any chunking, and FrameEncoderStream their bytes (e-26)", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbitraryFrame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 30 }),
      async (frames, sizes) => {
        const wire = concat(...frames.map(encodeFrame));
        const chunks: Uint8Array[] = [];
        for (let at = 0, i = 0; at < wire.length; i++) {
          const size = sizes[i % sizes.length]!;
          chunks.push(wire.slice(at, at + size));
          at += size;
        }
        const decoded =
          (await Array.fromAsync(ReadableStream.from(chunks).pipeThrough(new FrameDecoderStream()))).flat();
        assertEquals(decoded.map(bare), frames.map(bare));
        const encoded = await Array.fromAsync(
          ReadableStream.from([decoded]).pipeThrough(new FrameEncoderStream()),
        );
        assertEquals(concat(...encoded), wire);
        assert(encoded.length <= 1);
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("FrameDecoderStream takes a byte at a time, and many frames in one chunk as one batch", async () => {
  const wire = concat(...FRAMES.map(([hex]) => fromHex(hex)));
  const single = Array.from(wire, (byte) => new Uint8Array([byte]));
  const one = (await Array.fromAsync(ReadableStream.from(single).pipeThrough(new FrameDecoderStream())))
    .flat();
  const batches = await Array.fromAsync(ReadableStream.from([wire]).pipeThrough(new FrameDecoderStream()));
  assertEquals(batches.length, 1);
  assertEquals(one.map(bare), batches[0]!.map(bare));
  assertEquals(one.length, FRAMES.length);
});

Deno.test("FrameDecoderStream calls bytes that end inside a frame truncated, and a length too large by its name", async () => {
  for (const [bytes, code] of [["0000", "TRUNCATED"], ["010000", "FRAME_TOO_LARGE"]] as const) {
    const stream = ReadableStream.from([fromHex(bytes)]).pipeThrough(new FrameDecoderStream());
    assertEquals((await assertRejects(() => Array.fromAsync(stream), HtxError)).code, code);
  }
});

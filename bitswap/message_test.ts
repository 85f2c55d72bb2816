import { assert, assertEquals, assertThrows } from "@std/assert";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { concat, fromHex, HtxError, toHex } from "./_core.ts";
import { joinBlock } from "./cid.ts";
import {
  type BitswapMessage,
  type BitswapMessageInit,
  decodeMessage,
  decodePieces,
  encodeFramed,
  encodeMessage,
  MAX_BLOCK_LENGTH,
  MAX_MESSAGE_LENGTH,
  MAX_MESSAGE_PARTS,
  MAX_WANTS_PER_PEER,
  MessageDeframer,
  splitMessage,
} from "./message.ts";
import { sharedVectors } from "./_testing.ts";

interface Decoded {
  wantlist?: {
    full: boolean;
    entries: { block: string; priority: number; cancel: boolean; wantType: 0 | 1; sendDontHave: boolean }[];
  };
  blocks: string[];
  payload: { prefix: string; data: string }[];
  blockPresences: { cid: string; type: 0 | 1 }[];
  pendingBytes: number;
}
interface MessageVectors {
  upstream: { name: string; message: string; hex: string; reencoded_hex: string }[];
  messages: { name: string; hex: string; framed_hex: string; decoded: Decoded; canonical: boolean }[];
  invalid: { name: string; hex: string }[];
}

const vectors = sharedVectors<MessageVectors>("bitswap_messages.json");

function plain(message: BitswapMessage): Decoded {
  return {
    ...(message.wantlist === undefined ? {} : {
      wantlist: {
        full: message.wantlist.full,
        entries: message.wantlist.entries.map((entry) => ({
          block: toHex(entry.cid),
          priority: entry.priority,
          cancel: entry.cancel,
          wantType: entry.wantType === "have" ? 1 : 0,
          sendDontHave: entry.sendDontHave,
        })),
      },
    }),
    blocks: message.blocks.map(toHex),
    payload: message.payload.map(({ prefix, data }) => ({ prefix: toHex(prefix), data: toHex(data) })),
    blockPresences: message.blockPresences.map(({ cid, type }) => ({
      cid: toHex(cid),
      type: type === "dont-have" ? 1 : 0,
    })),
    pendingBytes: message.pendingBytes,
  };
}

function init(decoded: Decoded): BitswapMessageInit {
  return {
    ...(decoded.wantlist === undefined ? {} : {
      wantlist: {
        full: decoded.wantlist.full,
        entries: decoded.wantlist.entries.map((entry) => ({
          cid: fromHex(entry.block),
          priority: entry.priority,
          cancel: entry.cancel,
          wantType: entry.wantType === 1 ? "have" : "block",
          sendDontHave: entry.sendDontHave,
        })),
      },
    }),
    blocks: decoded.blocks.map(fromHex),
    payload: decoded.payload.map(({ prefix, data }) => ({ prefix: fromHex(prefix), data: fromHex(data) })),
    blockPresences: decoded.blockPresences.map(({ cid, type }) => ({
      cid: fromHex(cid),
      type: type === 1 ? "dont-have" : "have",
    })),
    pendingBytes: decoded.pendingBytes,
  };
}

Deno.test("the published messages decode, framed too, and the canonical ones encode alike", {
  ignore: !vectors,
}, () => {
  for (const { name, hex, framed_hex, decoded, canonical } of vectors!.messages) {
    assertEquals(plain(decodeMessage(fromHex(hex))), decoded, name);
    const framed = [...new MessageDeframer().push(fromHex(framed_hex))];
    assertEquals(framed.length, 1, name);
    assertEquals(toHex(joinBlock(framed[0]!)), hex, name);
    if (!canonical) continue;
    assertEquals(toHex(encodeMessage(init(decoded))), hex, name);
    assertEquals(toHex(concat(...encodeFramed(init(decoded)))), framed_hex, name);
  }
});

Deno.test("the published parts of messages decode, and encode as a proto3 encoder has them", {
  ignore: !vectors,
}, () => {
  const fields: Record<string, number> = { Wantlist: 1, Block: 3, BlockPresence: 4 };
  for (const { name, message, hex, reencoded_hex } of vectors!.upstream) {
    const wrap = (inner: string): string => {
      const length = (bytes: string): string => (bytes.length / 2).toString(16).padStart(2, "0");
      const body = message === "Entry" ? `0a${length(inner)}${inner}` : inner;
      return `${((fields[message] ?? 1) << 3 | 2).toString(16).padStart(2, "0")}${length(body)}${body}`;
    };
    const decoded = plain(decodeMessage(fromHex(wrap(hex))));
    assertEquals(toHex(encodeMessage(init(decoded))), wrap(reencoded_hex), name);
  }
});

Deno.test("the published malformed messages are refused", { ignore: !vectors }, () => {
  for (const { name, hex } of vectors!.invalid) {
    const error = assertThrows(() => decodeMessage(fromHex(hex)), HtxError, undefined, name);
    assertEquals([error.code, error.field], ["MALFORMED", "bitswap message"]);
  }
});

const CID = fromHex("01551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447");
const EVERYTHING =
  "0a2e0a2c0a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447100120012801" +
  "1a140a0401551220120c68656c6c6f20776f726c640a22260a221220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960" +
  "714caef0c4f2100128ac02";

Deno.test("encodeMessage() writes a message with everything in it byte for byte", () => {
  const message: BitswapMessageInit = {
    wantlist: { entries: [{ cid: CID, priority: 1, wantType: "have", sendDontHave: true }] },
    payload: [{ prefix: fromHex("01551220"), data: fromHex("68656c6c6f20776f726c640a") }],
    blockPresences: [{
      cid: fromHex("1220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2"),
      type: "dont-have",
    }],
    pendingBytes: 300,
  };
  assertEquals(toHex(encodeMessage(message)), EVERYTHING);
  assertEquals(plain(decodeMessage(fromHex(EVERYTHING))), plain(decodeMessage(encodeMessage(message))));
});

Deno.test("the limits are those of the protocol", () => {
  assertEquals([MAX_MESSAGE_LENGTH, MAX_BLOCK_LENGTH, MAX_WANTS_PER_PEER], [4_194_304, 2_097_152, 1024]);
});

Deno.test("every proper prefix of a message is refused or is a message with less in it", () => {
  const bytes = fromHex(EVERYTHING);
  for (let end = 0; end < bytes.length; end++) {
    try {
      const { payload, pendingBytes } = decodeMessage(bytes.subarray(0, end));
      assert(payload.length === 0 || pendingBytes === 0);
    } catch (error) {
      assert(error instanceof HtxError);
    }
  }
});

Deno.test("encodeFramed() hands on the bytes of blocks uncopied", () => {
  const data = new Uint8Array(100_000).fill(7);
  const pieces = encodeFramed({ payload: [{ prefix: fromHex("01551220"), data }] });
  assertEquals(pieces.length, 2);
  assert(pieces[1] === data);
  const two = encodeFramed({
    payload: [{ prefix: fromHex("01551220"), data: [data.subarray(0, 5), data.subarray(5)] }],
  });
  assertEquals(concat(...two), concat(...pieces));
});

/** A message of `count` empty parts, `before` them what makes them one. */
function tinyParts(
  kind: "entries" | "blocks" | "payload" | "presences" | "wantlists",
  count: number,
): Uint8Array {
  const tag =
    { entries: "0a00", blocks: "1200", payload: "1a00", presences: "2200", wantlists: "0a00" }[kind];
  const parts = fromHex(tag.repeat(count));
  return kind === "entries"
    ? concat(new BinaryWriter().tag(1, 2).uint32(parts.length).finish(), parts)
    : parts;
}

Deno.test("decodePieces() takes as many parts as it is told to, and no more", () => {
  for (const kind of ["blocks", "payload", "presences", "wantlists"] as const) {
    decodePieces([tinyParts(kind, 10)], { maxParts: 10 });
    const error = assertThrows(() => decodePieces([tinyParts(kind, 11)], { maxParts: 10 }), HtxError);
    assertEquals([error.code, error.field], ["LIMIT_EXCEEDED", "bitswap message"], kind);
  }
  // The want-list is a part, too.
  assertEquals(decodeMessage(tinyParts("entries", 10), { maxParts: 11 }).wantlist!.entries.length, 10);
  const error = assertThrows(() => decodeMessage(tinyParts("entries", 11), { maxParts: 11 }), HtxError);
  assertEquals(error.code, "LIMIT_EXCEEDED");
});

Deno.test("decodePieces() takes 16384 parts unless told otherwise", () => {
  assertEquals(MAX_MESSAGE_PARTS, 16_384);
  assertEquals(decodePieces([tinyParts("presences", 16_384)]).blockPresences.length, 16_384);
  for (const kind of ["entries", "blocks", "payload", "presences"] as const) {
    // As many as a message of 4 MiB has room for.
    const bytes = tinyParts(kind, 2_097_140);
    assertEquals(assertThrows(() => decodePieces([bytes]), HtxError).code, "LIMIT_EXCEEDED", kind);
  }
});

Deno.test("splitMessage() puts no more parts in a message than a server takes of a want-list", () => {
  const cid = new Uint8Array(4);
  const entries = Array(4097).fill({ cid });
  const blockPresences = Array(4096).fill({ cid, type: "have" });
  const sizes = [...splitMessage({ wantlist: { entries, full: true }, blockPresences })]
    .map((
      { wantlist, blockPresences },
    ) => [wantlist?.entries.length, wantlist?.full, blockPresences?.length]);
  assertEquals(sizes, [[4096, true, 0], [1, false, 4095], [undefined, undefined, 1]]);
});

Deno.test("MessageDeframer gathers short pieces, and leaves long ones and whole messages where they are", () => {
  const message = new Uint8Array(5000).map((_, i) => i);
  const framed = concat(new BinaryWriter().uint32(5000).finish(), message);
  const cut = (...ends: number[]): Uint8Array[] => {
    const deframer = new MessageDeframer();
    const out = [0, ...ends].flatMap((at, i) => [...deframer.push(framed.subarray(at, ends[i]))]);
    assertEquals(out.length, 1);
    assertEquals(joinBlock(out[0]!), message);
    return out[0]!;
  };
  const isView = ({ buffer }: Uint8Array): boolean => buffer === framed.buffer;
  assertEquals(cut(...Array.from({ length: 5000 }, (_, i) => i + 1)).map(({ length }) => length), [5000]);
  assertEquals(cut(2).map(isView), [true]);
  const mixed = cut(2, 3, 4, 2000, 2010, 2020, 4990);
  assertEquals(mixed.map(({ length }) => length), [2, 1996, 20, 2970, 12]);
  assertEquals(mixed.map(isView), [false, true, false, true, false]);
  const short = fromHex("020102");
  const [whole] = new MessageDeframer().push(short);
  assert(whole![0]!.buffer === short.buffer);
});

Deno.test("decodePieces() leaves the bytes of a block where they arrived", () => {
  const bytes = encodeMessage({
    payload: [{ prefix: fromHex("01551220"), data: new Uint8Array(1000).fill(9) }],
  });
  const { payload } = decodePieces([bytes.subarray(0, 3), bytes.subarray(3, 400), bytes.subarray(400)]);
  assertEquals(payload[0]!.data.length, 2);
  for (const piece of payload[0]!.data) assert(piece.buffer === bytes.buffer);
});

Deno.test("MessageDeframer takes a length at the limit and refuses one above it at the length's last byte", () => {
  const limit = 300;
  const deframer = new MessageDeframer(limit);
  assertEquals([...deframer.push(fromHex("ac02"))], []);
  assert(deframer.pending);
  assertEquals([...deframer.push(new Uint8Array(300))].map(joinBlock).map((bytes) => bytes.length), [300]);
  assert(!deframer.pending);
  const error = assertThrows(() => [...new MessageDeframer(limit).push(fromHex("ad02"))], HtxError);
  assertEquals(error.code, "LIMIT_EXCEEDED");
  assertThrows(() => [...new MessageDeframer().push(fromHex("ffffffff7f"))], HtxError);
  assertEquals(
    assertThrows(() => [...new MessageDeframer().push(fromHex("808080808000"))], HtxError).code,
    "MALFORMED",
  );
  assertThrows(() => encodeFramed({ blocks: [new Uint8Array(MAX_MESSAGE_LENGTH)] }), RangeError);
});

const cids = fc.uint8Array({ minLength: 1, maxLength: 40 });
const messages: fc.Arbitrary<BitswapMessageInit> = fc.record({
  wantlist: fc.record({
    entries: fc.array(
      fc.record({
        cid: cids,
        priority: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        cancel: fc.boolean(),
        wantType: fc.constantFrom("block" as const, "have" as const),
        sendDontHave: fc.boolean(),
      }),
      { maxLength: 8 },
    ),
    full: fc.boolean(),
  }),
  blocks: fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 4 }),
  payload: fc.array(
    fc.record({ prefix: fc.uint8Array({ maxLength: 6 }), data: fc.uint8Array({ maxLength: 300 }) }),
    {
      maxLength: 4,
    },
  ),
  blockPresences: fc.array(
    fc.record({ cid: cids, type: fc.constantFrom("have" as const, "dont-have" as const) }),
    { maxLength: 8 },
  ),
  pendingBytes: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
});

Deno.test("what is encoded decodes to the same, in one piece, cut anywhere, or byte by byte", () => {
  fc.assert(fc.property(messages, fc.nat(), (message, seed) => {
    const bytes = encodeMessage(message);
    const decoded = decodeMessage(bytes);
    assertEquals(encodeMessage(decoded), bytes);
    assertEquals(plain(decoded), plain(decodeMessage(encodeMessage(plain2(decoded)))));
    const cut = seed % (bytes.length + 1);
    const pieces = decodePieces([bytes.subarray(0, cut), bytes.subarray(cut)]);
    assertEquals(
      pieces.payload.map(({ data }) => toHex(joinBlock(data))),
      plain(decoded).payload.map((p) => p.data),
    );
    const framed = concat(...encodeFramed(message));
    const deframer = new MessageDeframer();
    const out = [];
    for (const byte of framed) out.push(...deframer.push(new Uint8Array([byte])));
    assertEquals(out.map((message) => toHex(joinBlock(message))), [toHex(bytes)]);
    assert(!deframer.pending);
  }));
});

function plain2(message: BitswapMessage): BitswapMessageInit {
  return init(plain(message));
}

Deno.test("random bytes decode or are MALFORMED, nothing else", () => {
  const sample = fromHex(EVERYTHING);
  const near = fc.tuple(fc.nat(sample.length - 1), fc.nat(255)).map(([at, byte]) => sample.with(at, byte));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), near), (bytes) => {
      let message;
      try {
        message = decodeMessage(bytes);
      } catch (error) {
        assert(error instanceof HtxError && error.code === "MALFORMED");
        return;
      }
      assertEquals(plain(decodeMessage(encodeMessage(message))), plain(message));
    }),
    { numRuns: 1000 },
  );
});

Deno.test("splitMessage() keeps every part, in order, in messages that fit", () => {
  fc.assert(fc.property(messages, fc.integer({ min: 420, max: 2000 }), (message, limit) => {
    const parts = [...splitMessage(message, limit)];
    for (const part of parts) assert(encodeMessage(part).length <= limit);
    const decoded = parts.map((part) => plain(decodeMessage(encodeMessage(part))));
    const whole = plain(decodeMessage(encodeMessage(message)));
    assertEquals(decoded.flatMap((part) => part.wantlist?.entries ?? []), whole.wantlist!.entries);
    assertEquals(decoded.flatMap((part) => part.blocks), whole.blocks);
    assertEquals(decoded.flatMap((part) => part.payload), whole.payload);
    assertEquals(decoded.flatMap((part) => part.blockPresences), whole.blockPresences);
    assertEquals(decoded.filter((part) => part.wantlist?.full).length, whole.wantlist!.full ? 1 : 0);
    assertEquals(decoded[0]?.wantlist?.full ?? whole.wantlist!.full, whole.wantlist!.full);
  }));
  assertEquals([...splitMessage({})], []);
  assertEquals([...splitMessage({ wantlist: { entries: [], full: true } })].length, 1);
  assertThrows(() => [...splitMessage({ blocks: [new Uint8Array(500)] }, 400)], RangeError);
});

/** Our messages beside the protobuf classes of @helia/bitswap, field by field, both ways. */

import fc from "fast-check";
import assert from "node:assert/strict";
import { type BitswapMessage, type BitswapMessageInit, decodeMessage, encodeMessage } from "../message.ts";

// The classes are not exported from the package.
const { BitswapMessage: Theirs, WantType, BlockPresenceType } = await import(
  new URL("./pb/message.js", import.meta.resolve("@helia/bitswap")).href
);

interface HeliaEntry {
  cid: Uint8Array;
  priority: number;
  cancel?: boolean;
  wantType?: string;
  sendDontHave?: boolean;
}

interface HeliaMessage {
  wantlist?: { entries: HeliaEntry[]; full?: boolean };
  blocks: { prefix: Uint8Array; data: Uint8Array }[];
  blockPresences: { cid: Uint8Array; type: string }[];
  pendingBytes: number;
}

/** A message of ours in Helia's words; it has no field 2, the blocks of Bitswap 1.0. */
function inTheirWords(message: BitswapMessage): HeliaMessage {
  return {
    ...(message.wantlist === undefined ? {} : {
      wantlist: {
        full: message.wantlist.full,
        entries: message.wantlist.entries.map((
          { cid, priority, cancel, wantType, sendDontHave },
        ) => ({
          cid,
          priority,
          cancel,
          wantType: wantType === "have" ? WantType.WantHave : WantType.WantBlock,
          sendDontHave,
        })),
      },
    }),
    blocks: message.payload.map(({ prefix, data }) => ({ prefix, data })),
    blockPresences: message.blockPresences.map(({ cid, type }) => ({
      cid,
      type: type === "have" ? BlockPresenceType.HaveBlock : BlockPresenceType.DoNotHaveBlock,
    })),
    pendingBytes: message.pendingBytes,
  };
}

/** What Helia decoded, with the defaults that it leaves out. */
function filled(message: HeliaMessage): HeliaMessage {
  const bytes = (value: Uint8Array): Uint8Array => new Uint8Array(value);
  return {
    ...(message.wantlist === undefined ? {} : {
      wantlist: {
        full: message.wantlist.full ?? false,
        entries: message.wantlist.entries.map((entry) => ({
          cid: bytes(entry.cid),
          priority: entry.priority,
          cancel: entry.cancel ?? false,
          wantType: entry.wantType ?? WantType.WantBlock,
          sendDontHave: entry.sendDontHave ?? false,
        })),
      },
    }),
    blocks: message.blocks.map(({ prefix, data }) => ({
      prefix: bytes(prefix),
      data: bytes(data),
    })),
    blockPresences: message.blockPresences.map(({ cid, type }) => ({
      cid: bytes(cid),
      type,
    })),
    pendingBytes: message.pendingBytes,
  };
}

function plain(message: HeliaMessage): unknown {
  return JSON.parse(
    JSON.stringify(
      message,
      (_, value) => value instanceof Uint8Array ? [...value] : value,
    ),
  );
}

const cids = fc.uint8Array({ minLength: 1, maxLength: 40 });
const messages: fc.Arbitrary<BitswapMessageInit> = fc.record({
  wantlist: fc.record({
    entries: fc.array(fc.record({
      cid: cids,
      priority: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      cancel: fc.boolean(),
      wantType: fc.constantFrom("block" as const, "have" as const),
      sendDontHave: fc.boolean(),
    })),
    full: fc.boolean(),
  }),
  payload: fc.array(
    fc.record({
      prefix: fc.uint8Array({ maxLength: 6 }),
      data: fc.uint8Array({ maxLength: 500 }),
    }),
  ),
  blockPresences: fc.array(
    fc.record({
      cid: cids,
      type: fc.constantFrom("have" as const, "dont-have" as const),
    }),
  ),
  pendingBytes: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
}, { requiredKeys: [] });

Deno.test("Helia decodes what is encoded here, field by field", () => {
  fc.assert(
    fc.property(messages, (message) => {
      const bytes = encodeMessage(message);
      const ours = inTheirWords(decodeMessage(bytes));
      assert.deepEqual(plain(filled(Theirs.decode(bytes))), plain(ours));
    }),
    { numRuns: 500 },
  );
});

Deno.test("what Helia encodes is decoded here, field by field, and encoded to the same bytes", () => {
  fc.assert(
    fc.property(messages, (message) => {
      const words = inTheirWords(decodeMessage(encodeMessage(message)));
      const bytes = new Uint8Array(Theirs.encode(words));
      const decoded = decodeMessage(bytes);
      assert.deepEqual(
        plain(inTheirWords(decoded)),
        plain(filled(Theirs.decode(bytes))),
      );
      assert.deepEqual(decodeMessage(encodeMessage(decoded)), decoded);
    }),
    { numRuns: 500 },
  );
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { fromHex, HtxError, toHex } from "../core/mod.ts";
import { formatPeerId, parsePeerId, peerIdOf, verifyPeerId } from "./identity.ts";
import {
  negotiateTransport,
  TRANSPORT_HTX,
  TRANSPORT_HTX_LEGACY,
  TRANSPORT_HTXQUIC,
  TRANSPORT_WEBRTC,
  TRANSPORTS,
} from "./transports.ts";

Deno.test("peerIdOf() is the sha2-256 multihash of the key", () => {
  // SHA-256("abc"), FIPS 180-2 B.1
  const id = "1220ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const key = new TextEncoder().encode("abc");
  assertEquals(toHex(peerIdOf(key)), id);
  assertEquals(formatPeerId(peerIdOf(key)), id);
  assertEquals(parsePeerId(id), fromHex(id));
  assertEquals(verifyPeerId(fromHex(id), key), { ok: true });
  assertEquals(verifyPeerId(fromHex(id), new TextEncoder().encode("abd")), {
    ok: false,
    reason: "other-key",
  });
  assertThrows(() => peerIdOf(new Uint8Array(0)), TypeError);
});

Deno.test("parsePeerId() checks length, prefix and spelling", () => {
  const id = "1220" + "ab".repeat(32);
  parsePeerId(id);
  for (
    const text of [
      "",
      "12",
      "1220",
      id.slice(2),
      id.slice(0, -1),
      id + "00",
      "1221" + "ab".repeat(32),
      "1320" + "ab".repeat(32),
      "1220" + "ab".repeat(31) + "a ",
      id.toUpperCase(),
      ` ${id.slice(1)}`,
      "0x" + id.slice(2),
    ]
  ) {
    const error = assertThrows(() => parsePeerId(text), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "peerId"], text);
  }
  assertThrows(() => formatPeerId(new Uint8Array(33)), HtxError);
  assertThrows(() => verifyPeerId(new Uint8Array(34), new Uint8Array(32)), HtxError);
});

Deno.test("what parsePeerId() accepts, formatPeerId() writes back", () => {
  const near = fc.stringMatching(/^[0-9a-fA-F]{62,68}$/).map((digits) => `1220${digits}`);
  fc.assert(fc.property(fc.oneof(fc.string(), near), (text) => {
    try {
      assertEquals(formatPeerId(parsePeerId(text)), text);
    } catch (error) {
      assert(error instanceof HtxError && error.code === "MALFORMED");
    }
  }));
});

Deno.test("the transport ids are those of the rules", () => {
  assertEquals([TRANSPORT_HTX, TRANSPORT_HTXQUIC, TRANSPORT_WEBRTC, TRANSPORT_HTX_LEGACY], [
    "/betanet/htx/1.1.0",
    "/betanet/htxquic/1.1.0",
    "/betanet/webrtc/1.0.0",
    "/betanet/htx/1.0.0",
  ]);
});

Deno.test("negotiateTransport() takes the first of the local preference that the peer offers", () => {
  const [quic, tcp, rtc, old] = [TRANSPORT_HTXQUIC, TRANSPORT_HTX, TRANSPORT_WEBRTC, TRANSPORT_HTX_LEGACY];
  const rows: [readonly string[], readonly string[], string][] = [
    [TRANSPORTS, [old, rtc, tcp, quic], quic],
    [TRANSPORTS, [tcp, old], tcp],
    [[tcp, quic], [quic, tcp], tcp],
    [[old, tcp], [tcp, old], old],
    [[rtc], [tcp, rtc, "/other"], rtc],
  ];
  for (const [local, peer, chosen] of rows) assertEquals(negotiateTransport(local, peer), chosen);
  const none: [readonly string[], readonly string[]][] = [
    [[], []],
    [[tcp], []],
    [[], [tcp]],
    [[tcp], [quic]],
    [[tcp], [`${tcp} `, tcp.toUpperCase(), "/betanet/htx/1.1"]],
  ];
  for (const [local, peer] of none) {
    const error = assertThrows(() => negotiateTransport(local, peer), HtxError);
    assertEquals([error.code, error.field], ["REFUSED", "transports"]);
  }
});

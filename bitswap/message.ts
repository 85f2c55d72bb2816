/**
 * Messages of Bitswap 1.2: values to protobuf and back, and the unsigned LEB128 length before each (HTX 1.1 §7).
 *
 *     +----------------+------------------------------------------------------------+
 *     | length, LEB128 | message: wantlist = 1, blocks = 2, payload = 3,             |
 *     | 1..4 bytes     |          blockPresences = 4, pendingBytes = 5               |
 *     +----------------+------------------------------------------------------------+
 *
 * Decoding copies no block: the bytes of a block are views of what was received, in one piece or in as many as
 * they arrived in. Encoding copies none either: {@linkcode encodeFramed} gives the pieces to write one after the
 * other.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { blockLength, joinBlock } from "./cid.ts";
import { ByteCollector, HtxError } from "./_core.ts";

/** Longest message taken or sent, in bytes (HTX 1.1 §7). */
export const MAX_MESSAGE_LENGTH: number = 4 * 1024 * 1024;
/** Longest block taken or sent, in bytes (HTX 1.1 §7). */
export const MAX_BLOCK_LENGTH: number = 2 * 1024 * 1024;
/** Wants one peer may have open (HTX 1.1 §7). */
export const MAX_WANTS_PER_PEER = 1024;
/**
 * Parts of one message that are taken unless {@linkcode DecodeOptions.maxParts} says otherwise: 16 for each want that a
 * peer may have open. A server takes 4 for each in a want-list; answers get room to spare.
 */
export const MAX_MESSAGE_PARTS: number = 16 * MAX_WANTS_PER_PEER;
/** Longest binary CID looked at in a want or a presence; longer ones name no block of ours. */
export const MAX_CID_LENGTH = 128;

/** What a want asks for: the block itself, or whether the peer has it. */
export type WantType = "block" | "have";
/** What a presence says. */
export type PresenceType = "have" | "dont-have";

/** One entry of a want-list. */
export interface WantlistEntry {
  /** Binary CID. */
  readonly cid: Uint8Array;
  /** Higher goes first; 32-bit signed. @default {1} */
  readonly priority?: number;
  /** Takes the want back. @default {false} */
  readonly cancel?: boolean;
  /** What is asked for. @default {"block"} */
  readonly wantType?: WantType;
  /** Asks for a presence `dont-have` instead of silence. @default {false} */
  readonly sendDontHave?: boolean;
}

/** A want-list, or a change of one. */
export interface Wantlist {
  /** The wants and cancels. */
  readonly entries: readonly WantlistEntry[];
  /** Whether this replaces what was said before. @default {false} */
  readonly full?: boolean;
}

/** A block with the prefix of its CID: version, codec, hash code, hash length. */
export interface BlockPayload<Data = Uint8Array> {
  /** All of the CID except the digest. */
  readonly prefix: Uint8Array;
  /** The block. */
  readonly data: Data;
}

/** Whether a peer has a block. */
export interface BlockPresence {
  /** Binary CID. */
  readonly cid: Uint8Array;
  /** What is said of it. */
  readonly type: PresenceType;
}

/** A want-list as received: every field filled. */
export interface DecodedWantlist {
  /** The wants and cancels. */
  readonly entries: readonly Required<WantlistEntry>[];
  /** Whether this replaces what was said before. */
  readonly full: boolean;
}

/** A message of Bitswap 1.2 with all its parts. */
export interface BitswapMessage<Data = Uint8Array> {
  /** Wants and cancels; absent when the message has no such part. */
  readonly wantlist?: DecodedWantlist;
  /** Blocks in the form of Bitswap 1.0, without a prefix. */
  readonly blocks: readonly Data[];
  /** Blocks with their prefix. */
  readonly payload: readonly BlockPayload<Data>[];
  /** Presences. */
  readonly blockPresences: readonly BlockPresence[];
  /** Bytes that wait to be sent to the receiver. */
  readonly pendingBytes: number;
}

/** What {@linkcode encodeMessage} takes: every part may be left out, blocks may be in several pieces. */
export interface BitswapMessageInit {
  /** Wants and cancels. */
  readonly wantlist?: Wantlist;
  /** Blocks in the form of Bitswap 1.0. */
  readonly blocks?: readonly (Uint8Array | readonly Uint8Array[])[];
  /** Blocks with their prefix. */
  readonly payload?: readonly BlockPayload<Uint8Array | readonly Uint8Array[]>[];
  /** Presences. */
  readonly blockPresences?: readonly BlockPresence[];
  /** Bytes that wait to be sent to the receiver; 32-bit signed. */
  readonly pendingBytes?: number;
}

// bitswap/message/pb/message.proto of ipfs/boxo, read as tag = field number << 3 | wire type.
const MESSAGE = { wantlist: 1, blocks: 2, payload: 3, blockPresences: 4, pendingBytes: 5 } as const;
const WANTLIST = { entries: 1, full: 2 } as const;
const ENTRY = { block: 1, priority: 2, cancel: 3, wantType: 4, sendDontHave: 5 } as const;
const BLOCK = { prefix: 1, data: 2 } as const;
const PRESENCE = { cid: 1, type: 2 } as const;
const WANT_HAVE = 1;
const DONT_HAVE = 1;

/**
 * Encodes a message in one array, without the length before it: proto3, fields in order, defaults left out.
 *
 * @throws {RangeError} when the message is longer than `limit`
 */
export function encodeMessage(
  message: BitswapMessageInit,
  limit: number = MAX_MESSAGE_LENGTH,
): Uint8Array<ArrayBuffer> {
  const pieces = encodePieces(message);
  checkLength(blockLength(pieces), limit);
  const out = joinBlock(pieces);
  // A single piece may be a block of the caller's: what is returned is always our own.
  return new Uint8Array(out);
}

/**
 * Encodes a message with its length before it, as pieces to write in this order. The bytes of blocks are the
 * caller's own arrays.
 *
 * @throws {RangeError} when the message is longer than `limit`
 */
export function encodeFramed(message: BitswapMessageInit, limit: number = MAX_MESSAGE_LENGTH): Uint8Array[] {
  const pieces = encodePieces(message);
  const length = blockLength(pieces);
  checkLength(length, limit);
  const head = new BinaryWriter().uint32(length);
  // The length joins the first piece when that is ours; then a block costs one small write and its own.
  if (pieces.length > 0) head.raw(pieces.shift()!);
  return [head.finish(), ...pieces];
}

function checkLength(length: number, limit: number): void {
  if (length > limit) {
    throw new RangeError(`Cannot encode Bitswap message: length is ${length}, limit is ${limit}`);
  }
}

/** Pieces in order; small ones are ours, blocks are the caller's. The first one is ours. */
function encodePieces(message: BitswapMessageInit): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const writer = new BinaryWriter();
  const { wantlist, blocks = [], payload = [], blockPresences = [], pendingBytes = 0 } = message;
  if (wantlist !== undefined) {
    writer.tag(MESSAGE.wantlist, WireType.LengthDelimited).fork();
    for (const entry of wantlist.entries) {
      writer.tag(WANTLIST.entries, WireType.LengthDelimited).fork();
      writeEntry(writer, entry);
      writer.join();
    }
    if (wantlist.full) writer.tag(WANTLIST.full, WireType.Varint).bool(true);
    writer.join();
  }
  for (const data of blocks) {
    writer.tag(MESSAGE.blocks, WireType.LengthDelimited).uint32(blockLength(data));
    pushBlock(pieces, writer, data);
  }
  for (const { prefix, data } of payload) {
    writer.tag(MESSAGE.payload, WireType.LengthDelimited).uint32(payloadLength(prefix, data));
    if (prefix.length > 0) writer.tag(BLOCK.prefix, WireType.LengthDelimited).bytes(prefix);
    const length = blockLength(data);
    if (length === 0) continue;
    writer.tag(BLOCK.data, WireType.LengthDelimited).uint32(length);
    pushBlock(pieces, writer, data);
  }
  for (const { cid, type } of blockPresences) {
    writer.tag(MESSAGE.blockPresences, WireType.LengthDelimited).fork();
    if (cid.length > 0) writer.tag(PRESENCE.cid, WireType.LengthDelimited).bytes(cid);
    if (type === "dont-have") writer.tag(PRESENCE.type, WireType.Varint).int32(DONT_HAVE);
    writer.join();
  }
  if (pendingBytes !== 0) writer.tag(MESSAGE.pendingBytes, WireType.Varint).int32(pendingBytes);
  const rest = writer.finish();
  if (rest.length > 0) pieces.push(rest);
  return pieces;
}

function writeEntry(writer: BinaryWriter, entry: WantlistEntry): void {
  const { cid, priority = 1, cancel = false, wantType = "block", sendDontHave = false } = entry;
  if (cid.length > 0) writer.tag(ENTRY.block, WireType.LengthDelimited).bytes(cid);
  if (priority !== 0) writer.tag(ENTRY.priority, WireType.Varint).int32(priority);
  if (cancel) writer.tag(ENTRY.cancel, WireType.Varint).bool(true);
  if (wantType === "have") writer.tag(ENTRY.wantType, WireType.Varint).int32(WANT_HAVE);
  if (sendDontHave) writer.tag(ENTRY.sendDontHave, WireType.Varint).bool(true);
}

function payloadLength(prefix: Uint8Array, data: Uint8Array | readonly Uint8Array[]): number {
  return lengthDelimited(prefix.length) + lengthDelimited(blockLength(data));
}

function lengthDelimited(length: number): number {
  return length === 0 ? 0 : 1 + leb128Length(length) + length;
}

function pushBlock(
  pieces: Uint8Array[],
  writer: BinaryWriter,
  data: Uint8Array | readonly Uint8Array[],
): void {
  pieces.push(writer.finish());
  if (data instanceof Uint8Array) pieces.push(data);
  else pieces.push(...data);
}

/** Bytes that an unsigned LEB128 takes. */
export function leb128Length(value: number): number {
  let length = 1;
  for (; value >= 0x80; value = Math.floor(value / 0x80)) length++;
  return length;
}

/** Options of {@linkcode decodeMessage} and {@linkcode decodePieces}. */
export interface DecodeOptions {
  /**
   * Want-lists, entries, blocks and presences in one message, at most and all together. Two bytes make a part and a
   * decoded part takes hundreds, so they are counted while they are read. @default {16384}
   */
  readonly maxParts?: number;
}

/**
 * Decodes one message. Unknown fields are skipped; a singular field that comes twice is merged (want-list) or
 * the last one counts (numbers), as protobuf has it. The bytes of blocks and CIDs alias the input.
 *
 * @throws {HtxError} `MALFORMED` or, past {@linkcode DecodeOptions.maxParts}, `LIMIT_EXCEEDED`; field `bitswap message`
 *
 * @example Round trip
 * ```ts
 * import { cidOf, decodeMessage, encodeMessage } from "@betanet/htx/bitswap";
 * import { assertEquals } from "@std/assert";
 *
 * const cid = cidOf(new TextEncoder().encode("hello")).bytes;
 * const message = decodeMessage(encodeMessage({ wantlist: { entries: [{ cid, wantType: "have" }] } }));
 * assertEquals(message.wantlist?.entries[0]?.cid, cid);
 * ```
 */
export function decodeMessage(bytes: Uint8Array, options: DecodeOptions = {}): BitswapMessage {
  const { wantlist, blocks, payload, blockPresences, pendingBytes } = decodePieces([bytes], options);
  return {
    ...(wantlist === undefined ? {} : { wantlist }),
    blocks: blocks.map(joinBlock),
    payload: payload.map(({ prefix, data }) => ({ prefix, data: joinBlock(data) })),
    blockPresences,
    pendingBytes,
  };
}

/**
 * {@linkcode decodeMessage} for a message that lies in several arrays, as it came from the wire; a block that
 * lies in several of them stays so.
 *
 * @throws {HtxError} `MALFORMED` or, past {@linkcode DecodeOptions.maxParts}, `LIMIT_EXCEEDED`; field `bitswap message`
 */
export function decodePieces(
  pieces: readonly Uint8Array[],
  options: DecodeOptions = {},
): BitswapMessage<Uint8Array[]> {
  const { maxParts = MAX_MESSAGE_PARTS } = options;
  try {
    return readMessage(new PieceReader(pieces), new PartCounter(maxParts));
  } catch (cause) {
    if (cause instanceof HtxError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HtxError("MALFORMED", `Cannot decode Bitswap message: ${why}`, { field: FIELD, cause });
  }
}

const FIELD = "bitswap message";
/** What a field that is not there holds: one for all, since nobody can write to it. */
const NOTHING: Uint8Array = /* @__PURE__ */ new Uint8Array();

/** Counts the parts of a message, and refuses one too many. */
class PartCounter {
  readonly #limit: number;
  #count = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(): void {
    if (++this.#count <= this.#limit) return;
    throw new HtxError(
      "LIMIT_EXCEEDED",
      `Cannot decode Bitswap message: it has more than ${this.#limit} parts`,
      { field: FIELD },
    );
  }
}

function readMessage(reader: PieceReader, parts: PartCounter): BitswapMessage<Uint8Array[]> {
  let entries: Required<WantlistEntry>[] | undefined;
  let full = false;
  const blocks: Uint8Array[][] = [];
  const payload: BlockPayload<Uint8Array[]>[] = [];
  const blockPresences: BlockPresence[] = [];
  let pendingBytes = 0;
  while (reader.left > 0) {
    const tag = reader.varint32();
    const field = tag >>> 3;
    const wire = tag & 7;
    if (field === 0) throw new RangeError("field number is 0");
    if (field === MESSAGE.wantlist && wire === WireType.LengthDelimited) {
      // The part may be repeated: protobuf merges, so entries add up and `full` is the last one said.
      parts.add();
      const part = flatReader(reader);
      entries ??= [];
      while (part.pos < part.len) full = readWantlistField(part, entries, full, parts);
      requireEnd(part);
    } else if (field === MESSAGE.blocks && wire === WireType.LengthDelimited) {
      parts.add();
      blocks.push(reader.take(reader.varint32()));
    } else if (field === MESSAGE.payload && wire === WireType.LengthDelimited) {
      parts.add();
      payload.push(readPayload(reader, reader.varint32()));
    } else if (field === MESSAGE.blockPresences && wire === WireType.LengthDelimited) {
      parts.add();
      blockPresences.push(readPresence(flatReader(reader)));
    } else if (field === MESSAGE.pendingBytes && wire === WireType.Varint) {
      pendingBytes = reader.varint32() | 0;
    } else {
      reader.skip(wire);
    }
  }
  return {
    ...(entries === undefined ? {} : { wantlist: { entries, full } }),
    blocks,
    payload,
    blockPresences,
    pendingBytes,
  };
}

function readWantlistField(
  part: BinaryReader,
  entries: Required<WantlistEntry>[],
  full: boolean,
  parts: PartCounter,
): boolean {
  const [field, wire] = part.tag();
  if (field === WANTLIST.entries && wire === WireType.LengthDelimited) {
    parts.add();
    entries.push(readEntry(new BinaryReader(part.bytes())));
    return full;
  }
  if (field === WANTLIST.full && wire === WireType.Varint) return part.bool();
  part.skip(wire, field);
  return full;
}

function readEntry(part: BinaryReader): Required<WantlistEntry> {
  let cid: Uint8Array = NOTHING;
  let priority = 0;
  let cancel = false;
  let wantType: WantType = "block";
  let sendDontHave = false;
  while (part.pos < part.len) {
    const [field, wire] = part.tag();
    if (field === ENTRY.block && wire === WireType.LengthDelimited) cid = part.bytes();
    else if (wire !== WireType.Varint) part.skip(wire, field);
    else if (field === ENTRY.priority) priority = part.int32();
    else if (field === ENTRY.cancel) cancel = part.bool();
    else if (field === ENTRY.wantType) wantType = part.int32() === WANT_HAVE ? "have" : "block";
    else if (field === ENTRY.sendDontHave) sendDontHave = part.bool();
    else part.skip(wire, field);
  }
  requireEnd(part);
  return { cid, priority, cancel, wantType, sendDontHave };
}

function readPresence(part: BinaryReader): BlockPresence {
  let cid: Uint8Array = NOTHING;
  let type: PresenceType = "have";
  while (part.pos < part.len) {
    const [field, wire] = part.tag();
    if (field === PRESENCE.cid && wire === WireType.LengthDelimited) cid = part.bytes();
    else if (field === PRESENCE.type && wire === WireType.Varint) {
      type = part.int32() === DONT_HAVE ? "dont-have" : "have";
    } else part.skip(wire, field);
  }
  requireEnd(part);
  return { cid, type };
}

function readPayload(reader: PieceReader, length: number): BlockPayload<Uint8Array[]> {
  const end = reader.end(length);
  let prefix: Uint8Array = NOTHING;
  let data: Uint8Array[] = [];
  while (reader.left > end) {
    const tag = reader.varint32();
    const field = tag >>> 3;
    const wire = tag & 7;
    if (field === 0) throw new RangeError("field number is 0");
    if (field === BLOCK.prefix && wire === WireType.LengthDelimited) {
      prefix = joinBlock(reader.take(reader.varint32()));
    } else if (field === BLOCK.data && wire === WireType.LengthDelimited) {
      data = reader.take(reader.varint32());
    } else reader.skip(wire);
  }
  if (reader.left !== end) throw new RangeError("a field passes the end of its block");
  return { prefix, data };
}

function flatReader(reader: PieceReader): BinaryReader {
  return new BinaryReader(joinBlock(reader.take(reader.varint32())));
}

/** The wire reader checks most bounds itself, fixed-size fields and skipped varints excepted. */
function requireEnd(part: BinaryReader): void {
  if (part.pos !== part.len) throw new RangeError("premature end");
}

/** Reads protobuf primitives over several arrays, without joining them. */
class PieceReader {
  readonly #pieces: readonly Uint8Array[];
  #index = 0;
  #at = 0;
  /** Bytes not read yet. */
  left: number;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
    this.left = blockLength(pieces);
  }

  /** What {@linkcode left} will be after `length` more bytes. */
  end(length: number): number {
    if (length > this.left) throw new RangeError("premature end");
    return this.left - length;
  }

  #byte(): number {
    this.end(1);
    while (this.#at === this.#pieces[this.#index]!.length) {
      this.#index++;
      this.#at = 0;
    }
    this.left--;
    return this.#pieces[this.#index]![this.#at++]!;
  }

  /** The low 32 bits of a varint of at most 10 bytes, unsigned. */
  varint32(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte();
      if (i < 5) value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return value >>> 0;
    }
    throw new RangeError("varint is longer than 10 bytes");
  }

  /** Views of the next `length` bytes; none for 0. */
  take(length: number): Uint8Array[] {
    this.end(length);
    const out: Uint8Array[] = [];
    this.left -= length;
    while (length > 0) {
      const piece = this.#pieces[this.#index]!;
      const size = Math.min(length, piece.length - this.#at);
      if (size > 0) out.push(piece.subarray(this.#at, this.#at + size));
      length -= size;
      this.#at += size;
      if (this.#at === piece.length) {
        this.#index++;
        this.#at = 0;
      }
    }
    return out;
  }

  /** Steps over a field of no interest. */
  skip(wire: number): void {
    switch (wire) {
      case WireType.Varint:
        this.varint32();
        break;
      case WireType.Bit64:
        this.take(8);
        break;
      case WireType.Bit32:
        this.take(4);
        break;
      case WireType.LengthDelimited:
        this.take(this.varint32());
        break;
      default:
        // Groups are no part of proto3.
        throw new RangeError(`wire type is ${wire}`);
    }
  }
}

/**
 * Cuts a byte stream into messages. Nothing is reserved for a length that was only announced: memory holds what
 * has arrived, and a length above the limit is refused at its last byte. Short pieces are gathered, so that a
 * message costs about its bytes however finely it was cut.
 */
export class MessageDeframer {
  readonly #limit: number;
  #pieces: Uint8Array[] = [];
  /** Short pieces that come after {@linkcode #pieces}. */
  readonly #short = new ByteCollector();
  /** Bytes still missing of the message begun; `undefined` while its length is being read. */
  #missing: number | undefined;
  #length = 0;
  #lengthBytes = 0;

  /** Begins with nothing read; `limit` is the longest message taken, in bytes. */
  constructor(limit: number = MAX_MESSAGE_LENGTH) {
    this.#limit = limit;
  }

  /** Bytes held of the message begun. */
  get buffered(): number {
    return this.#missing === undefined ? 0 : this.#length - this.#missing;
  }

  /** Whether a message has begun and not ended: the end of the stream here is truncation. */
  get pending(): boolean {
    return this.#missing !== undefined || this.#lengthBytes > 0;
  }

  /**
   * Takes the next bytes as they came and gives the messages that are complete with them, as pieces for
   * {@linkcode decodePieces}. The pieces alias `chunk`, but for short ones of a message that came in several chunks.
   *
   * @throws {HtxError} `LIMIT_EXCEEDED` when a length passes the limit, `MALFORMED` when it is no LEB128
   */
  *push(chunk: Uint8Array): Generator<Uint8Array[], void, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#missing === undefined) {
        at = this.#readLength(chunk, at);
        if (this.#missing === undefined) return;
      }
      const size = Math.min(this.#missing, chunk.length - at);
      if (size > 0) this.#keep(chunk.subarray(at, at + size), size === this.#length);
      at += size;
      this.#missing -= size;
      if (this.#missing > 0) return;
      this.#gather();
      const message = this.#pieces;
      this.#pieces = [];
      this.#missing = undefined;
      this.#length = 0;
      yield message;
    }
  }

  #keep(piece: Uint8Array, isWhole: boolean): void {
    if (piece.length < SHORT_PIECE && !isWhole) {
      this.#short.push(piece);
      return;
    }
    this.#gather();
    this.#pieces.push(piece);
  }

  #gather(): void {
    if (this.#short.size > 0) this.#pieces.push(this.#short.take());
  }

  #readLength(chunk: Uint8Array, at: number): number {
    while (at < chunk.length) {
      const byte = chunk[at++]!;
      this.#length += (byte & 0x7f) * 2 ** (7 * this.#lengthBytes++);
      if (this.#length > this.#limit) {
        throw new HtxError(
          "LIMIT_EXCEEDED",
          `Cannot read Bitswap message: length is ${this.#length} or more, limit is ${this.#limit}`,
          { field: FIELD },
        );
      }
      if (byte < 0x80) {
        this.#missing = this.#length;
        this.#lengthBytes = 0;
        return at;
      }
      if (this.#lengthBytes === 5) {
        throw new HtxError("MALFORMED", "Cannot read Bitswap message: its length is no LEB128 of 32 bits", {
          field: FIELD,
        });
      }
    }
    return at;
  }
}

/** Pieces below this length are copied together: a view of one takes a hundred bytes, and holds its whole chunk. */
const SHORT_PIECE = 1024;

/** Bytes of protobuf around one part of a message, at most: tags and lengths. */
const PART_OVERHEAD = 32;
/** Parts of one message that is sent, at most: what a server takes in one want-list. */
const SPLIT_PARTS: number = 4 * MAX_WANTS_PER_PEER;

/**
 * Splits what is to be said into messages that each fit the limit and hold no more parts than a server takes of a
 * want-list, parts in order: want-list entries, blocks, presences. What fits in one message stays one.
 *
 * `full` stands in the first message only: the later ones add to it.
 *
 * @throws {RangeError} when a single block does not fit
 */
export function* splitMessage(
  message: BitswapMessageInit,
  limit: number = MAX_MESSAGE_LENGTH,
): Generator<BitswapMessageInit, void, undefined> {
  const { wantlist, blocks = [], payload = [], blockPresences = [], pendingBytes = 0 } = message;
  let part = emptyParts();
  let size = PART_OVERHEAD;
  let count = 0;
  let full = wantlist?.full ?? false;
  let empty = wantlist === undefined;
  let said = false;

  function* add(bytes: number): Generator<BitswapMessageInit, void, undefined> {
    if ((size + bytes > limit || count === SPLIT_PARTS) && said) {
      yield finish();
      part = emptyParts();
      size = PART_OVERHEAD;
      count = 0;
      said = false;
    }
    if (size + bytes > limit) {
      throw new RangeError(`Cannot split Bitswap message: a part takes ${bytes} bytes, limit is ${limit}`);
    }
    size += bytes;
    count++;
    said = true;
  }
  function finish(): BitswapMessageInit {
    const out = {
      ...(part.entries.length > 0 || !empty ? { wantlist: { entries: part.entries, full } } : {}),
      blocks: part.blocks,
      payload: part.payload,
      blockPresences: part.blockPresences,
      pendingBytes,
    };
    full = false;
    empty = true;
    return out;
  }

  for (const entry of wantlist?.entries ?? []) {
    yield* add(entry.cid.length + PART_OVERHEAD);
    part.entries.push(entry);
  }
  for (const data of blocks) {
    yield* add(blockLength(data) + PART_OVERHEAD);
    part.blocks.push(data);
  }
  for (const block of payload) {
    yield* add(block.prefix.length + blockLength(block.data) + PART_OVERHEAD);
    part.payload.push(block);
  }
  for (const presence of blockPresences) {
    yield* add(presence.cid.length + PART_OVERHEAD);
    part.blockPresences.push(presence);
  }
  if (said || !empty || pendingBytes !== 0) yield finish();
}

interface Parts {
  entries: WantlistEntry[];
  blocks: (Uint8Array | readonly Uint8Array[])[];
  payload: BlockPayload<Uint8Array | readonly Uint8Array[]>[];
  blockPresences: BlockPresence[];
}

function emptyParts(): Parts {
  return { entries: [], blocks: [], payload: [], blockPresences: [] };
}

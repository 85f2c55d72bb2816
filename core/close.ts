/**
 * CLOSE frames and the errors they carry (HTX 1.1 §3), and reading inside opened frames.
 *
 * @module
 */

import { concat, fromUtf8, utf8 } from "./bytes.ts";
import type { Bytes } from "./crypto.ts";
import { CloseCode, type CloseCodeName, closeCodeName, HtxError } from "./errors.ts";
import { decodeVarint, encodeVarint } from "./varint.ts";

/** Bytes of CLOSE reason that are sent and accepted (HTX 1.1 §3). */
export const MAX_REASON_LENGTH = 256;

/** A CLOSE as it stands in its frame: stream id 0 ends the session, any other resets that stream. */
export interface CloseFrame {
  /** The code. */
  readonly closeCode: number;
  /** The stream, or 0. */
  readonly streamId: number;
  /** At most 256 bytes of UTF-8. */
  readonly reason: string;
}

/** The plaintext of a CLOSE frame. The good end of a session is empty. */
export function encodeClose({ closeCode, streamId, reason }: CloseFrame): Bytes {
  if (streamId === 0 && closeCode === CloseCode.NO_ERROR && reason === "") return new Uint8Array(0);
  return concat(encodeVarint(closeCode), encodeVarint(streamId), utf8(reason));
}

/** What the plaintext of a CLOSE frame says; `undefined` where it cannot be parsed. */
export function decodeClose(plaintext: Uint8Array): CloseFrame | undefined {
  if (plaintext.length === 0) return { closeCode: CloseCode.NO_ERROR, streamId: 0, reason: "" };
  const code = readVarint(plaintext, 0);
  const id = code && readVarint(plaintext, code.length);
  if (code === undefined || id === undefined) return undefined;
  const bytes = plaintext.subarray(code.length + id.length);
  const reason = bytes.length <= MAX_REASON_LENGTH ? readText(bytes) : undefined;
  return reason === undefined ? undefined : { closeCode: code.value, streamId: id.value, reason };
}

/** The error that ends a session whose peer broke a rule: `why` completes "Session ended: …". */
export function protocolError(why: string): HtxError {
  return new HtxError("PROTOCOL_ERROR", `Session ended: ${why}`);
}

/** The error that a received CLOSE stands for. */
export function remoteError(closeCode: number, reason: string, streamId?: number): HtxError {
  const name = closeCodeName(closeCode);
  const what = streamId === undefined ? "Session" : "Stream";
  const message = `${what} was ended by the peer: ${name === "UNKNOWN" ? closeCode : name}${
    reason === "" ? "" : `: ${reason}`
  }`;
  return new HtxError(name, message, { remote: true, closeCode, streamId });
}

/** The number of a code given by name or number. Throws `RangeError` where it is no varint. */
export function codeNumber(code: CloseCodeName | number): number {
  const number = typeof code === "number" ? code : CloseCode[code];
  if (!Number.isSafeInteger(number) || number < 0) {
    throw new RangeError(`Cannot use code ${code}: it is neither the name of one nor a varint`);
  }
  return number;
}

/** `reason`, cut at a character so that it takes at most 256 bytes of UTF-8. */
export function shortReason(reason: string): string {
  let short = "";
  let size = 0;
  for (const character of reason) {
    size += utf8(character).length;
    if (size > MAX_REASON_LENGTH) break;
    short += character;
  }
  return short.toWellFormed();
}

/** Text inside an opened frame; `undefined` where it is not UTF-8. */
function readText(bytes: Uint8Array): string | undefined {
  try {
    return fromUtf8(bytes);
  } catch {
    return undefined;
  }
}

/** A varint inside an opened frame; `undefined` where it is cut off or too large. */
export function readVarint(bytes: Uint8Array, offset: number): { value: number; length: number } | undefined {
  try {
    return decodeVarint(bytes, offset);
  } catch {
    return undefined;
  }
}

/** Whether two public byte strings are equal. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

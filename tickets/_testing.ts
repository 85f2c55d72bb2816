/** What several tests of this folder share. */

import { type Bytes, fromHex, selectCrypto, utf8 } from "../core/mod.ts";
import vector from "./testdata/ticket.json" with { type: "json" };

/** The ticket vector, as bytes. */
export const VECTOR = {
  key: {
    privateKey: fromHex(vector.ticket_private),
    publicKey: fromHex(vector.ticket_public),
    keyId: fromHex(vector.ticket_key_id),
  },
  clientPrivate: fromHex(vector.client_private),
  clientPub: fromHex(vector.client_public),
  nonce: fromHex(vector.nonce),
  pad: fromHex(vector.pad),
  shared: fromHex(vector.shared),
  salt: fromHex(vector.salt),
  accessTicket: fromHex(vector.access_ticket),
  payload: fromHex(vector.payload),
  text: vector.text_base64url,
  hour: vector.hour,
  now: vector.unix_seconds * 1000,
};

/** Milliseconds in an hour. */
export const HOUR = 3_600_000;

/** Whether the long form of a test is wanted. */
export function isLong(): boolean {
  return Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
    Deno.env.get("HTX_LONG") === "1";
}

/** Bytes that look random and are the same in every run. */
export function seededRandom(seed: string): (length: number) => Bytes {
  const { sha256 } = selectCrypto("noble");
  let block = sha256(utf8(seed));
  let at = 0;
  return (length) => {
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      if (at === block.length) {
        block = sha256(block, utf8("next"));
        at = 0;
      }
      out[i] = block[at++]!;
    }
    return out;
  };
}

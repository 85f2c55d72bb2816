/**
 * Sockets of Deno's and nonces, as programs by hand use them.
 *
 * @module
 */

/** Writes all of it. */
export async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = await conn.write(bytes); at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

/** Fills `into`; `false` where the peer ended before. */
export async function readFull(conn: Deno.Conn, into: Uint8Array): Promise<boolean> {
  for (let at = 0; at < into.length;) {
    const read = await conn.read(into.subarray(at));
    if (read === null) return false;
    at += read;
  }
  return true;
}

/** Counts up in the last eight bytes of a nonce. */
export function nextNonce(nonce: Uint8Array): void {
  for (let i = 4; i < nonce.length; i++) {
    nonce[i] = nonce[i]! + 1;
    if (nonce[i] !== 0) return;
  }
}

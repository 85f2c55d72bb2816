/**
 * Direct reads and writes of any duplex.
 *
 * @module
 */

import { type ByteIo, type Duplex, StreamIo } from "../core/mod.ts";
import { endDuplex } from "../core/_end_duplex.ts";

/**
 * What a duplex has of its own, or else its streams.
 *
 * @throws {TypeError} when somebody holds its streams; the duplex is ended
 */
export function duplexIo(duplex: Duplex): ByteIo {
  try {
    return duplex.io ?? new StreamIo(duplex);
  } catch (error) {
    endDuplex(duplex);
    throw error;
  }
}

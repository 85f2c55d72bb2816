/** Dials of tests. */

import type { Duplex } from "../core/mod.ts";
import type { KeyPair } from "../noise/mod.ts";
import { memoryDuplexPair } from "./memory.ts";
import { acceptDuplex } from "./server.ts";
import { echo } from "./upstream/echo.ts";

/** A duplex to a server that answers message 1 and ends. */
export function endsWithHandshake(keyPair: KeyPair): Duplex {
  const [here, there] = memoryDuplexPair();
  const io = there.io!;
  const write = io.write.bind(io);
  io.write = async (data) => {
    await write(data);
    await io.closeWrite();
  };
  acceptDuplex(there, { keyPair, onStream: echo() }).catch(() => {});
  return here;
}

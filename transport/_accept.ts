/**
 * What every accept loop does where the system refuses for a while.
 *
 * @module
 */

import type { Duplex } from "../core/mod.ts";
import { tell } from "../core/_tell.ts";
import type { DuplexListener } from "./listener.ts";

/** How long an accept loop waits after an error of the system's, in ms. */
const ACCEPT_RETRY_MS = 100;

/** The next duplex of `listener`; `undefined` once it was closed, or where it breaks while the loop is `stopping`. */
export async function acceptNext(
  listener: DuplexListener,
  options: { onError: ((error: unknown) => void) | undefined; stopping: () => boolean },
): Promise<Duplex | undefined> {
  for (;;) {
    try {
      return await listener.accept();
    } catch (error) {
      // Out of file descriptors and the like: others may be served meanwhile, so the loop goes on after a breath.
      tell(options.onError, error);
      if (options.stopping()) return undefined;
      await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
    }
  }
}

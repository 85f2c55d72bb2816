import { timerDelay } from "../core/_timer_delay.ts";
import { MAX_TICKET_BODY_LENGTH } from "../tickets/mod.ts";

/** How long a form that may hold a ticket may take to arrive, in ms. */
export const DEFAULT_FORM_TIMEOUT_MS = 10_000;

/** Reads a form whole: `undefined` when it does not come in time, or is not as long as announced. */
export async function readForm(
  request: Request,
  length: number,
  timeoutMs: number,
): Promise<Uint8Array | undefined> {
  const { body } = request;
  if (body === null) return new Uint8Array(0);
  const reader = body.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) =>
    timer = setTimeout(() => resolve(undefined), timerDelay(timeoutMs))
  );
  try {
    const form = new Uint8Array(Math.min(length, MAX_TICKET_BODY_LENGTH));
    let at = 0;
    for (;;) {
      const read = await Promise.race([reader.read(), late]);
      if (read?.done) return at === form.length ? form : undefined;
      if (read === undefined || at + read.value.length > form.length) {
        reader.cancel().catch(() => {}); // the connection is of no use any more
        return undefined;
      }
      form.set(read.value, at);
      at += read.value.length;
    }
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Chunks of a forwarded body whose memory is used again once the front has sent them. The gateway cannot know who will
 * read the `Response` it gives away: it may be wrapped, cloned, piped through something. So it offers to lend, and only
 * a front that finds its very own response still with its very own stream takes it up.
 *
 * @module
 */

import type { HttpBody } from "../transport/mod.ts";

interface Offer {
  readonly stream: ReadableStream<Uint8Array>;
  readonly body: HttpBody;
}

const offers = new WeakMap<Response, Offer>();

/** Says that `response` streams `body` through `stream`, chunk by chunk as it is pulled. */
export function offerToLend(response: Response, stream: ReadableStream<Uint8Array>, body: HttpBody): void {
  offers.set(response, { stream, body });
}

/** For a front that is done with a chunk of the body when it pulls the next. Gives `response` back. */
export function borrow(response: Response): Response {
  const offer = offers.get(response);
  // After `clone()` the response has another stream, whose chunks somebody else sees too.
  if (offer !== undefined && response.body === offer.stream) offer.body.lend();
  return response;
}

/**
 * What whoever is not let in gets to see: an ordinary site. Decoy and tunnel share one listener and one HTTP stack, and
 * a refusal is answered by nothing but the decoy.
 *
 * A decoy sees the request as it came, failed tickets in query and cookies included: do not log those in a handler of
 * your own.
 *
 * @module
 */

import { mayCarryTicket } from "../tickets/mod.ts";
import { staticFiles } from "../transport/mod.ts";
import { DEFAULT_FORM_TIMEOUT_MS, readForm } from "./_form.ts";
import type { FrontHandler, FrontInfo } from "./front.ts";

/** A decoy that always says the same. */
export interface FixedDecoyOptions {
  /** Status. @default {404} */
  status?: number | undefined;
  /** Fields. @default {`content-type: text/plain; charset=utf-8`} */
  headers?: HeadersInit | undefined;
  /** Body. @default {"404 Not Found\n"} */
  body?: string | Uint8Array | undefined;
}

/** A decoy that serves the files below a folder: content types, conditional requests, ranges, index files. */
export function staticDecoy(root: string | URL): FrontHandler {
  const files = staticFiles(root);
  return (request) => files(request);
}

/** A decoy that always gives the same answer. */
export function fixedDecoy(options: FixedDecoyOptions = {}): FrontHandler {
  const { status = 404, headers = { "content-type": "text/plain; charset=utf-8" } } = options;
  const body = new TextEncoder().encode(
    typeof options.body === "string" || options.body === undefined ? options.body ?? "404 Not Found\n" : "",
  );
  const content = options.body instanceof Uint8Array ? options.body.slice() : body;
  const empty = status === 204 || status === 205 || status === 304;
  return () => new Response(empty ? null : content, { status, headers });
}

/**
 * The decoy on its own, as a front's handler: what a gateway shows to strangers, without a gateway. For comparing the
 * two. Small forms are read whole before the answer, as a gateway has to.
 */
export function decoyAlone(decoy: FrontHandler, options: { formTimeoutMs?: number } = {}): FrontHandler {
  const { formTimeoutMs = DEFAULT_FORM_TIMEOUT_MS } = options;
  return async (request, info) => {
    const { headers } = request;
    const contentLength = headers.get("content-length");
    let body: Uint8Array | undefined;
    if (
      mayCarryTicket({
        method: request.method,
        contentType: headers.get("content-type"),
        contentLength,
        contentEncoding: headers.get("content-encoding"),
        transferEncoding: headers.get("transfer-encoding"),
      })
    ) {
      body = await readForm(request, Number(contentLength), formTimeoutMs) ?? new Uint8Array(0);
    }
    return await answerDecoy(decoy, request, info, body);
  };
}

/** Gives a request to the decoy; what was read of its body in search of a ticket is put back. Never rejects. */
export async function answerDecoy(
  decoy: FrontHandler,
  request: Request,
  info: FrontInfo,
  body: Uint8Array | undefined,
): Promise<Response> {
  try {
    return await decoy(body === undefined ? request : new ReadRequest(request, body), info);
  } catch {
    return new Response(null, { status: 500 });
  }
}

/** A request whose body has been read. The URL stays as it was received: a parser would change it. */
class ReadRequest extends Request {
  readonly #url: string;

  constructor(request: Request, body: Uint8Array) {
    super("http://decoy.invalid/", { method: request.method, headers: request.headers, body: body.slice() });
    this.#url = request.url;
  }

  override get url(): string {
    return this.#url;
  }
}

/**
 * What lies at the far end of the tunnel: a fetch handler like any other. Nobody reaches it but through HTX.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { toHex } from "@betanet/htx/core";
import type { HttpRequestInfo } from "@betanet/htx/transport";
import { contentDigest, FILE_LENGTH, FILE_SHA256, fileStream } from "./sample.ts";

/** The most bytes of a file, in either direction. */
const MAX_FILE_LENGTH = 1024 ** 3;
/** Digests of other sizes that are remembered. */
const MAX_DIGESTS = 64;
const TICK_MS = 1000;

/** A fetch handler; `stopping` ends the answers that would go on for ever. */
export function resources(
  stopping: AbortSignal,
): (request: Request, info: HttpRequestInfo) => Response | Promise<Response> {
  const digests = new Map([[FILE_LENGTH, FILE_SHA256]]);
  return async (request, info) => {
    const { pathname, searchParams } = new URL(request.url);
    switch (`${request.method} ${pathname}`) {
      case "GET /hello":
        return Response.json({
          message: "hello from the other end of the tunnel",
          time: new Date().toISOString(),
          stream: info.streamId,
          carrier: info.remoteAddr?.transport ?? null,
          yourKey: info.remoteStatic === undefined ? null : toHex(info.remoteStatic),
        });
      case "GET /counter":
        return new Response(counter(stopping), { headers: { "content-type": "text/event-stream" } });
      case "GET /file": {
        const length = readLength(searchParams.get("bytes"));
        if (length === undefined) return problem(400, `bytes must be 1 to ${MAX_FILE_LENGTH}`);
        const digest = digests.get(length) ?? await sha256Of(fileStream(length));
        if (digests.size < MAX_DIGESTS) digests.set(length, digest);
        return new Response(fileStream(length), {
          headers: {
            "content-type": "application/octet-stream",
            "content-length": String(length),
            "content-digest": contentDigest(digest),
          },
        });
      }
      case "POST /upload": {
        const hash = createHash("sha256");
        let bytes = 0;
        for await (const chunk of request.body ?? []) {
          bytes += chunk.length;
          if (bytes > MAX_FILE_LENGTH) return problem(413, `at most ${MAX_FILE_LENGTH} bytes`);
          hash.update(chunk);
        }
        return Response.json({ bytes, sha256: hash.digest("hex") });
      }
      default:
        return problem(404, "there is GET /hello, GET /counter, GET /file?bytes=N and POST /upload");
    }
  };
}

/** Server-sent events: how many seconds this answer has been running. */
function counter(stopping: AbortSignal): ReadableStream<Uint8Array> {
  let timer: ReturnType<typeof setInterval> | undefined;
  let end = () => {};
  return new ReadableStream<string>({
    start(controller) {
      let count = 0;
      const tick = () => controller.enqueue(`data: ${JSON.stringify({ count: count++ })}\n\n`);
      end = () => {
        clearInterval(timer);
        controller.close();
      };
      tick();
      timer = setInterval(tick, TICK_MS);
      if (stopping.aborted) end();
      else stopping.addEventListener("abort", end, { once: true });
    },
    cancel() {
      clearInterval(timer);
      stopping.removeEventListener("abort", end);
    },
  }).pipeThrough(new TextEncoderStream());
}

async function sha256Of(stream: ReadableStream<Uint8Array>): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest("hex");
}

function readLength(text: string | null): number | undefined {
  if (text === null) return FILE_LENGTH;
  const length = /^[0-9]{1,10}$/.test(text) ? Number(text) : 0;
  return length >= 1 && length <= MAX_FILE_LENGTH ? length : undefined;
}

function problem(status: number, detail: string): Response {
  return Response.json({ status, detail }, {
    status,
    headers: { "content-type": "application/problem+json" },
  });
}

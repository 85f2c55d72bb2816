/**
 * Frames, varints and HTTP messages to bytes and back: `deno bench bench/micro/codec_bench.ts`.
 *
 * @module
 */

import {
  decodeFrame,
  decodeVarint,
  encodeFrame,
  type Frame,
  FrameScanner,
  FrameType,
  writeHeader,
  writeVarint,
} from "../../core/mod.ts";
import {
  encodeHttpRequest,
  encodeHttpResponse,
  HttpMessageDecoder,
  type HttpRequestHead,
} from "../../transport/mod.ts";

const scratch = new Uint8Array(16);
for (const value of [37, 15_293, 494_878_333, 2 ** 40]) {
  const length = writeVarint(value, scratch, 0);
  const encoded = scratch.slice(0, length);
  Deno.bench(`varint of ${length}: write`, { group: "varint" }, () => {
    writeVarint(value, scratch, 0);
  });
  Deno.bench(`varint of ${length}: read`, { group: "varint" }, () => {
    decodeVarint(encoded);
  });
}

for (const length of [64, 1024, 65_535]) {
  const frame: Frame = { type: FrameType.STREAM, streamId: 1, sealed: new Uint8Array(length + 16) };
  const bytes = encodeFrame(frame);
  const scanner = new FrameScanner();
  Deno.bench(`frame of ${length} B: header in place`, { group: `frame ${length}`, baseline: true }, () => {
    writeHeader(FrameType.STREAM, 1, length, scratch, 0);
  });
  Deno.bench(`frame of ${length} B: scan in place`, { group: `frame ${length}` }, () => {
    scanner.parse(bytes, 0, bytes.length);
  });
  Deno.bench(`frame of ${length} B: encode`, { group: `frame ${length}` }, () => {
    encodeFrame(frame);
  });
  Deno.bench(`frame of ${length} B: decode`, { group: `frame ${length}` }, () => {
    decodeFrame(bytes);
  });
}

const head: HttpRequestHead = {
  method: "GET",
  scheme: "https",
  authority: "app.example",
  path: "/articles/17?view=full",
  fields: [
    ["accept", "text/html,application/xhtml+xml"],
    ["accept-encoding", "gzip, br"],
    ["accept-language", "en"],
    ["user-agent", "bench"],
    ["cookie", "session=0123456789abcdef0123456789abcdef"],
  ],
};
const content = new Uint8Array(16);
const request = encodeHttpRequest(head);
const response = encodeHttpResponse({ status: 200, fields: [["content-type", "text/plain"]] }, { content });
Deno.bench("HTTP request: encode", { group: "http" }, () => {
  encodeHttpRequest(head);
});
Deno.bench("HTTP request: decode", { group: "http" }, () => decode("request", request));
Deno.bench("HTTP response: encode", { group: "http" }, () => {
  encodeHttpResponse({ status: 200, fields: [["content-type", "text/plain"]] }, { content });
});
Deno.bench("HTTP response: decode", { group: "http" }, () => decode("response", response));

function decode(kind: "request" | "response", bytes: Uint8Array): void {
  const decoder = new HttpMessageDecoder(kind);
  decoder.push(bytes);
  decoder.end();
  while (decoder.next()?.type !== "end");
}

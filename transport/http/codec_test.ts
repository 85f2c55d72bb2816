// The codec against vectors, its own mirror image, every prefix, every limit, and what must be refused.

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Bytes, concat, encodeVarint, fromHex, HtxError, toHex, utf8 } from "../../core/mod.ts";
import vectors from "./testdata/bhttp_rfc9292.json" with { type: "json" };
import {
  DEFAULT_HTTP_LIMITS,
  encodeHttpChunk,
  encodeHttpChunkHeader,
  encodeHttpEnd,
  encodeHttpRequest,
  encodeHttpResponse,
  type HttpDecoderOptions,
  type HttpEvent,
  type HttpField,
  HttpMessageDecoder,
  HttpMessageDecoderStream,
  HttpMessageEncoderStream,
  type HttpRequestHead,
  httpStatusOf,
  isWebSocketRequest,
} from "./mod.ts";

type Kind = "request" | "response";

/** A message as plain data, whatever the pieces were that it came in. */
interface Message {
  informational: { status: number; fields: HttpField[] }[];
  head?: HttpRequestHead | { status: number; fields: readonly HttpField[] };
  content: string;
  trailers: readonly HttpField[];
  ended: boolean;
}

function decode(kind: Kind, pieces: Uint8Array[], options: HttpDecoderOptions = {}, end = true): Message {
  const decoder = new HttpMessageDecoder(kind, options);
  const message: Message = { informational: [], content: "", trailers: [], ended: false };
  const drain = () => {
    for (let event = decoder.next(); event !== undefined; event = decoder.next()) {
      assert(!message.ended, "an event after the end");
      if (event.type === "informational") {
        message.informational.push({ status: event.head.status, fields: [...event.head.fields] });
      } else if (event.type === "data") {
        assert(event.data.length > 0, "empty data");
        message.content += toHex(event.data);
      } else if (event.type === "trailers") message.trailers = event.fields;
      else if (event.type === "end") message.ended = true;
      else message.head = event.head;
    }
  };
  for (const piece of pieces) {
    // The pushed bytes are only borrowed: overwritten as soon as the decoder asks for more.
    const borrowed = new Uint8Array(piece);
    decoder.push(borrowed);
    drain();
    borrowed.fill(0xaa);
  }
  if (end) {
    decoder.end();
    drain();
  }
  return message;
}

function bytewise(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
}

/** Field lines out of JSON. */
function pairs(lists: string[][]): [string, string][] {
  return lists.map(([name, value]) => [name!, value!]);
}

/** Varint length, then text. */
function str(text: string): Uint8Array {
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  return concat(encodeVarint(bytes.length), bytes);
}

function lines(...fields: [string, string][]): Uint8Array {
  return concat(...fields.map(([name, value]) => concat(str(name), str(value))));
}

/** An indeterminate-length request, put together without the encoder. */
function rawRequest(
  { method = "GET", scheme = "https", authority = "a.example", path = "/", fields = [], rest = [0, 0] }: {
    method?: string;
    scheme?: string;
    authority?: string;
    path?: string;
    fields?: [string, string][];
    rest?: number[];
  },
): Uint8Array {
  const control = concat(str(method), str(scheme), str(authority), str(path));
  return concat(new Uint8Array([2]), control, lines(...fields), new Uint8Array([0]), new Uint8Array(rest));
}

function rawResponse(status: number, fields: [string, string][] = [], rest: number[] = [0, 0]): Uint8Array {
  return concat(new Uint8Array([3]), encodeVarint(status), lines(...fields), new Uint8Array([0, ...rest]));
}

function refusal(kind: Kind, bytes: Uint8Array, options: HttpDecoderOptions = {}): HtxError {
  const error = assertThrows(() => decode(kind, [bytes], options), HtxError);
  assert(error.code === "MALFORMED" || error.code === "LIMIT_EXCEEDED", error.code);
  // A byte at a time it is the same refusal.
  const again = assertThrows(() => decode(kind, bytewise(bytes), options), HtxError);
  assertEquals([again.code, again.field], [error.code, error.field]);
  return error;
}

function assertMalformed(
  kind: Kind,
  bytes: Uint8Array,
  field: string,
  options: HttpDecoderOptions = {},
): void {
  const error = refusal(kind, bytes, options);
  assertEquals([error.code, error.field], ["MALFORMED", field]);
  assertEquals(httpStatusOf(error), 400);
}

function assertOversized(
  kind: Kind,
  bytes: Uint8Array,
  status: number,
  options: HttpDecoderOptions = {},
): void {
  const error = refusal(kind, bytes, options);
  assertEquals(error.code, "LIMIT_EXCEEDED");
  assertEquals(httpStatusOf(error), status);
}

// ---------------------------------------------------------------- vectors

function checkVectors(cases: typeof vectors): void {
  for (const { name, kind, hex, decoded } of cases.valid) {
    const bytes = fromHex(hex);
    for (const pieces of [[bytes], bytewise(bytes)]) {
      const message = decode(kind as Kind, pieces);
      const fields = pairs(decoded.fields);
      const host = fields.find(([field]) => field === "host")?.[1];
      const carried = fields.filter(([field]) => field !== "host");
      const expected = kind === "request"
        ? {
          method: decoded.method ?? "",
          scheme: decoded.scheme ?? "",
          authority: decoded.authority === "" ? host ?? "" : decoded.authority ?? "",
          path: decoded.path ?? "",
          fields: carried,
        }
        : { status: decoded.status ?? 0, fields };
      // Two of ohttp's messages name no authority at all, which HTX refuses (below).
      assertEquals(message.head, expected, name);
      assertEquals(message.content, decoded.content_hex, name);
      assertEquals(message.trailers, pairs(decoded.trailers), name);
      assertEquals(
        message.informational,
        (decoded.informational ?? []).map(({ status, fields }) => ({ status, fields: pairs(fields) })),
        name,
      );
      assert(message.ended, name);
    }
  }
  for (const { kind, hex } of cases.invalid) refusal(kind as Kind, fromHex(hex));
}

Deno.test("HttpMessageDecoder reads the messages of RFC 9292 and of another implementation", () => {
  checkVectors(vectors);
});

Deno.test("HttpMessageDecoder reads the shared vectors", async () => {
  const url = new URL("../../../shared/vectors/bhttp_rfc9292.json", import.meta.url);
  let text: string;
  try {
    text = await Deno.readTextFile(url);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return console.warn("skipped: the shared vectors are not here");
  }
  checkVectors(JSON.parse(text));
});

Deno.test("encodeHttpRequest() and encodeHttpResponse() make the bytes of the RFC's examples", () => {
  const example = vectors.valid.find(({ name }) => name === "request-indeterminate-length-padded")!;
  const { decoded } = example;
  const request = encodeHttpRequest({
    method: "GET",
    scheme: "https",
    authority: "",
    path: "/hello.txt",
    fields: pairs(decoded.fields),
  }, { content: new Uint8Array(0) });
  // The example leaves the authority empty and sends `host`; here Host has moved into the authority.
  const unpadded = example.hex.slice(0, example.hex.length - 20);
  const moved = unpadded.replace("000a2f68656c6c6f", "0f7777772e6578616d706c652e636f6d0a2f68656c6c6f")
    .replace("04686f73740f7777772e6578616d706c652e636f6d", "");
  assertEquals(toHex(request), moved);

  const response = vectors.valid.find(({ name }) =>
    name === "response-indeterminate-length-with-informational"
  )!;
  const informational = (response.decoded.informational ?? []) as {
    status: number;
    fields: [string, string][];
  }[];
  const bytes = concat(
    ...informational.map((head, i) => encodeHttpResponse(head, { continued: i > 0 })),
    encodeHttpResponse({ status: 200, fields: pairs(response.decoded.fields) }, {
      continued: true,
      content: fromHex(response.decoded.content_hex),
    }),
  );
  assertEquals(toHex(bytes), response.hex);
});

// ---------------------------------------------------------------- round trips

const token = fc.stringMatching(/^[a-z0-9!#$%&'*+.^_`|~-]{1,20}$/).filter((name) =>
  ![
    "host",
    "connection",
    "te",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "content-length",
    "cookie",
  ].includes(name)
);
const value = fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 40 }).map((codes) =>
  String.fromCharCode(...codes).replace(/[\0\r\n]/g, ".").replace(/^[ \t]+|[ \t]+$/g, "")
);
const fieldList = fc.array(fc.tuple(token, value), { maxLength: 8 });
const path = fc.stringMatching(/^\/[!-~]{0,40}$/).filter((text) => !text.includes("#"));
const authority = fc.stringMatching(/^([a-z0-9.-]{1,20}|\[[0-9a-f:]{2,20}\])(:[0-9]{0,5})?$/);
const requestHead = fc.record({
  method: fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}$/).filter((method) => method !== "CONNECT"),
  scheme: fc.constantFrom("http", "https"),
  authority,
  path,
  fields: fieldList,
});
const contents = fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 });

/** The bytes cut at places drawn by the test. */
function cut(bytes: Uint8Array, places: number[]): Uint8Array[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  const pieces: Uint8Array[] = [];
  let from = 0;
  for (const to of [...at, bytes.length]) {
    pieces.push(bytes.subarray(from, to));
    from = to;
  }
  return pieces;
}

Deno.test("a request reads back as it was written, whatever pieces it comes in (e-45)", () => {
  fc.assert(
    fc.property(
      requestHead,
      contents,
      fieldList,
      fc.array(fc.nat(), { maxLength: 6 }),
      (head, chunks, trailers, places) => {
        const bytes = concat(
          encodeHttpRequest(head),
          ...chunks.map(encodeHttpChunk),
          encodeHttpEnd(trailers),
        );
        const expected: Message = {
          informational: [],
          head,
          content: chunks.map(toHex).join(""),
          trailers: trailers,
          ended: true,
        };
        assertEquals(decode("request", [bytes]), expected);
        assertEquals(decode("request", cut(bytes, places)), expected);
        assertEquals(decode("request", bytewise(bytes)), expected);
      },
    ),
    { numRuns: 150 },
  );
});

Deno.test("a response reads back as it was written, whatever pieces it comes in", () => {
  const status = fc.integer({ min: 200, max: 599 }).filter((code) => code !== 204 && code !== 304);
  const early = fc.array(
    fc.record({ status: fc.integer({ min: 102, max: 199 }), fields: fieldList }),
    { maxLength: 3 },
  );
  fc.assert(
    fc.property(
      early,
      status,
      fieldList,
      contents,
      fc.array(fc.nat(), { maxLength: 6 }),
      (informational, status, fields, chunks, places) => {
        const bytes = concat(
          ...informational.map((head, i) => encodeHttpResponse(head, { continued: i > 0 })),
          encodeHttpResponse({ status, fields }, { continued: informational.length > 0 }),
          ...chunks.map(encodeHttpChunk),
          encodeHttpEnd(),
        );
        const expected = decode("response", [bytes]);
        assertEquals(expected.head, { status, fields });
        assertEquals(expected.informational, informational as Message["informational"]);
        assertEquals(expected.content, chunks.map(toHex).join(""));
        assertEquals(decode("response", cut(bytes, places)), expected);
        assertEquals(decode("response", bytewise(bytes)), expected);
      },
    ),
    { numRuns: 150 },
  );
});

Deno.test("random and damaged bytes give a message, need more, or an HtxError, and nothing else", () => {
  const good = rawRequest({ fields: [["cookie", "a=1"], ["content-length", "3"]], rest: [3, 1, 2, 3, 0, 0] });
  fc.assert(
    fc.property(
      fc.constantFrom<Kind>("request", "response"),
      fc.uint8Array({ maxLength: 60 }),
      (kind, bytes) => {
        let all: unknown, one: unknown;
        try {
          all = decode(kind, [bytes]);
        } catch (error) {
          assert(error instanceof HtxError, String(error));
          all = `${error.code} ${error.field}`;
        }
        try {
          one = decode(kind, bytewise(bytes));
        } catch (error) {
          assert(error instanceof HtxError, String(error));
          one = `${error.code} ${error.field}`;
        }
        assertEquals(one, all);
      },
    ),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 }), (at, byte) => {
      const bytes = new Uint8Array(good);
      bytes[at] = byte;
      try {
        decode("request", [bytes]);
      } catch (error) {
        assert(error instanceof HtxError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("decoding keeps its error and throws it again", () => {
  const decoder = new HttpMessageDecoder("request");
  decoder.push(new Uint8Array([3]));
  const first = assertThrows(() => decoder.next(), HtxError);
  decoder.push(new Uint8Array([0]));
  assert(assertThrows(() => decoder.next()) === first);
  assert(decoder.error === first);
});

// ---------------------------------------------------------------- ends (RFC 9292 §3.8)

Deno.test("every prefix of an indeterminate-length message ends it where RFC 9292 allows, and nowhere else", () => {
  const head = concat(new Uint8Array([2]), str("POST"), str("https"), str("a.example"), str("/p"));
  const section = lines(["x", "1"], ["yy", "22"]);
  const zero = new Uint8Array([0]);
  const chunks = concat(encodeVarint(2), utf8("ab"), encodeVarint(1), utf8("c"));
  const trailers = lines(["t", "3"]);
  const bytes = concat(head, section, zero, chunks, zero, trailers, zero);
  const afterHead = head.length;
  const afterSection = head.length + section.length + 1;
  const afterContent = afterSection + chunks.length + 1;
  for (let length = 0; length <= bytes.length; length++) {
    const prefix = bytes.subarray(0, length);
    if ([afterHead, afterSection, afterContent, bytes.length].includes(length)) {
      const message = decode("request", [prefix]);
      assert(message.ended, `prefix of ${length}`);
      assertEquals(message.head?.fields.length, length === afterHead ? 0 : 2);
      assertEquals(message.content, length >= afterContent ? "616263" : "");
      assertEquals(message.trailers.length, length === bytes.length ? 1 : 0);
      assertEquals(decode("request", bytewise(prefix)), message);
    } else {
      assertMalformed("request", prefix, "message");
    }
    // Without the end of the direction, a prefix only asks for more.
    assertEquals(decode("request", [prefix], {}, false).ended, length === bytes.length);
  }
});

Deno.test("every prefix of a known-length message ends it where RFC 9292 allows, and nowhere else", () => {
  const head = concat(new Uint8Array([1]), encodeVarint(200));
  const section = lines(["x", "1"], ["yy", "22"]);
  const content = utf8("abc");
  const trailers = lines(["t", "3"]);
  const bytes = concat(
    head,
    encodeVarint(section.length),
    section,
    encodeVarint(content.length),
    content,
    encodeVarint(trailers.length),
    trailers,
  );
  const ends = [
    head.length,
    head.length + 1 + section.length,
    head.length + section.length + content.length + 2,
    bytes.length,
  ];
  for (let length = 0; length <= bytes.length; length++) {
    const prefix = bytes.subarray(0, length);
    if (ends.includes(length)) {
      const message = decode("response", [prefix]);
      assertEquals(message.content, length >= ends[2]! ? "616263" : "");
      assertEquals(decode("response", bytewise(prefix)), message);
    } else {
      assertMalformed("response", prefix, "message");
    }
  }
});

Deno.test("an end within informational responses is no end of a response", () => {
  assertMalformed("response", concat(new Uint8Array([3]), encodeVarint(103)), "message");
  assertMalformed(
    "response",
    concat(new Uint8Array([3]), encodeVarint(103), lines(["x", "1"]), new Uint8Array([0])),
    "message",
  );
  assert(decode("response", [concat(rawResponse(103, [], []), encodeVarint(200))]).ended);
});

Deno.test("zero padding is dropped up to 64 KiB, anything else behind a message is malformed", () => {
  const message = rawRequest({});
  assert(decode("request", [concat(message, new Uint8Array(65_536))]).ended);
  assert(decode("request", [message, ...Array.from({ length: 64 }, () => new Uint8Array(1024))]).ended);
  assertMalformed("request", concat(message, new Uint8Array(65_537)), "padding");
  assertMalformed("request", concat(message, new Uint8Array([0, 0, 1])), "padding");
  // Padding that comes after the end was reported is judged too.
  assertThrows(() => decode("request", [message, new Uint8Array([0, 7])]), HtxError);
  assertThrows(() => decode("request", [message, new Uint8Array(65_537)]), HtxError);
});

Deno.test("non-minimal lengths mean the same", () => {
  const bytes = concat(
    new Uint8Array([0x40, 0x02, 0x80, 0, 0, 3]),
    utf8("GET"),
    new Uint8Array([0xc0, 0, 0, 0, 0, 0, 0, 5]),
    utf8("https"),
    new Uint8Array([0x40, 1]),
    utf8("a"),
    new Uint8Array([0x40, 1]),
    utf8("/"),
    new Uint8Array([0x40, 1]),
    utf8("x"),
    new Uint8Array([0x40, 1]),
    utf8("1"),
    new Uint8Array([0x40, 0, 0x40, 1, 9, 0x80, 0, 0, 0, 0]),
  );
  const expected = decode("request", [bytes]);
  assertEquals(expected.head, {
    method: "GET",
    scheme: "https",
    authority: "a",
    path: "/",
    fields: [["x", "1"]],
  });
  assertEquals(expected.content, "09");
  assertEquals(decode("request", bytewise(bytes)), expected);
});

// ---------------------------------------------------------------- malformed

Deno.test("framing indicators of the other kind and unknown ones are malformed", () => {
  for (const indicator of [1, 3, 4, 63]) {
    assertMalformed("request", new Uint8Array([indicator, 0, 0]), "framing");
  }
  for (const indicator of [0, 2, 4, 63]) {
    assertMalformed("response", new Uint8Array([indicator, 0, 0]), "framing");
  }
});

Deno.test("malformed control data is refused (e-45)", () => {
  const bad: [Parameters<typeof rawRequest>[0], string][] = [
    [{ method: "" }, "method"],
    [{ method: "GE T" }, "method"],
    [{ method: "GET\r\n" }, "method"],
    [{ method: "G\0T" }, "method"],
    [{ method: "GÉT" }, "method"],
    [{ scheme: "" }, "scheme"],
    [{ scheme: "ftp" }, "scheme"],
    [{ scheme: "HTTP" }, "scheme"],
    [{ scheme: "https:" }, "scheme"],
    [{ authority: "" }, "authority"],
    [{ authority: "a b" }, "authority"],
    [{ authority: "user@a.example" }, "authority"],
    [{ authority: "a.example/x" }, "authority"],
    [{ authority: "a.example\r\nx: 1" }, "authority"],
    [{ authority: "a.example:http" }, "authority"],
    [{ authority: "a\\b" }, "authority"],
    [{ authority: "[::1" }, "authority"],
    [{ path: "" }, "path"],
    [{ path: "a" }, "path"],
    [{ path: "*" }, "path"],
    [{ path: "http://a.example/" }, "path"],
    [{ path: "/a b" }, "path"],
    [{ path: "/a#b" }, "path"],
    [{ path: "/a\x7f" }, "path"],
    [{ path: "/é" }, "path"],
    [{ path: "/ HTTP/1.1\r\nhost: b" }, "path"],
    [{ path: "/\0" }, "path"],
    [{ method: "OPTIONS", path: "*a" }, "path"],
    [{ method: "CONNECT", path: "x" }, "path"],
    [{ method: "CONNECT", scheme: "", path: "", fields: [["upgrade", "websocket"]] }, "path"],
  ];
  for (const [parts, field] of bad) assertMalformed("request", rawRequest(parts), field);
  for (const status of [0, 99, 101, 600, 999, 16_384]) {
    assertMalformed("response", rawResponse(status), "status");
  }
});

Deno.test("paths are carried byte for byte", () => {
  for (
    const path of [
      "/",
      "/a/../b",
      "/%2e%2e/%2E",
      "//a//b",
      "/\\..\\",
      '/|^"<>`{}',
      "/?",
      "/?a=b?c",
      "/a;b=c,d",
      "/.%00",
    ]
  ) {
    const head = { method: "GET", scheme: "http", authority: "a", path, fields: [] };
    assertEquals(decode("request", [encodeHttpRequest(head)]).head, head);
  }
  const options = { method: "OPTIONS", scheme: "http", authority: "a", path: "*", fields: [] };
  assertEquals(decode("request", [encodeHttpRequest(options)]).head, options);
});

Deno.test("the authority is the authority, or else a single host field", () => {
  const head = (authority: string, ...hosts: string[]) =>
    decode("request", [
      rawRequest({
        authority,
        fields: [...hosts.map((host) => ["host", host] as [string, string]), ["x", "1"]],
      }),
    ])
      .head as HttpRequestHead;
  assertEquals(head("", "b.example:80").authority, "b.example:80");
  assertEquals(head("", "b.example").fields, [["x", "1"]]);
  assertEquals(head("a.example", "a.example").authority, "a.example");
  assertEquals(head("a.example", "A.Example").fields, [["x", "1"]]);
  const fields = (...hosts: string[]) => hosts.map((host) => ["host", host] as [string, string]);
  assertMalformed("request", rawRequest({ authority: "a.example", fields: fields("b.example") }), "host");
  assertMalformed("request", rawRequest({ authority: "a.example", fields: fields("") }), "host");
  assertMalformed("request", rawRequest({ authority: "", fields: fields("a.example", "b.example") }), "host");
  assertMalformed("request", rawRequest({ authority: "", fields: fields("") }), "authority");
  assertMalformed("request", rawRequest({ authority: "", fields: fields("a@b") }), "authority");
});

Deno.test("field names that are no lower-case tokens and values with CR, LF, NUL or outer blanks are malformed (e-45)", () => {
  for (
    const name of [
      "Host",
      "X-a",
      ":path",
      "a b",
      "a:",
      "a\r\nb",
      "a\0",
      "é",
      "a/b",
      '"a"',
      "(a)",
      "a,b",
      "a\x7f",
    ]
  ) {
    assertMalformed("request", rawRequest({ fields: [[name, "1"]] }), "field name");
    assertMalformed("response", rawResponse(200, [[name, "1"]]), "field name");
  }
  for (
    const value of [
      "a\r\nx: 1",
      "a\rb",
      "a\nb",
      "\n",
      "a\0b",
      "\0",
      " a",
      "a ",
      "\ta",
      "a\t",
      " ",
      "\t",
      "GET / HTTP/1.1\r\n\r\n",
    ]
  ) {
    assertMalformed("request", rawRequest({ fields: [["x", value]] }), "field value");
    assertMalformed("response", rawResponse(200, [["x", value]]), "field value");
    assertMalformed("response", rawResponse(103, [["x", value]]), "field value");
  }
  // In trailers as well, though the content has been read by then.
  const bad = concat(
    rawRequest({ method: "POST", rest: [1, 65, 0] }),
    lines(["x", "a\nb"]),
    new Uint8Array([0]),
  );
  assertMalformed("request", bad, "field value");
  // Other control characters, and bytes that are no ASCII, are carried.
  const odd: [string, string][] = [["x", "a\x01\x7f b\té\xff"], ["y", ""], ["z", `"GET / HTTP/1.1"`]];
  assertEquals(decode("request", [rawRequest({ fields: odd })]).head?.fields, odd);
});

Deno.test("an empty field name in a known-length section is malformed", () => {
  const section = concat(lines(["x", "1"]), new Uint8Array([0, 1, 65]));
  const bytes = concat(new Uint8Array([1]), encodeVarint(200), encodeVarint(section.length), section);
  assertMalformed("response", bytes, "header section");
});

Deno.test("a line that runs past its known-length section is malformed, the same with what follows it present", () => {
  const section = lines(["abc", "defg"]);
  for (let declared = 1; declared < section.length; declared++) {
    const bytes = concat(
      new Uint8Array([1]),
      encodeVarint(200),
      encodeVarint(declared),
      section,
      new Uint8Array(50),
    );
    assertMalformed("response", bytes, "header section");
  }
});

Deno.test("connection fields, and those that connection names, are dropped on receipt", () => {
  const fields: [string, string][] = [
    ["connection", "close, X-Named,,  foo"],
    ["keep-alive", "timeout=5"],
    ["proxy-connection", "keep-alive"],
    ["transfer-encoding", "chunked"],
    ["upgrade", "h2c"],
    ["te", "gzip"],
    ["te", "trailers"],
    ["foo", "1"],
    ["x-named", "2"],
    ["trailer", "t"],
    ["x-kept", "3"],
  ];
  const kept: [string, string][] = [["te", "trailers"], ["trailer", "t"], ["x-kept", "3"]];
  assertEquals(decode("request", [rawRequest({ fields })]).head?.fields, kept);
  assertEquals(decode("response", [rawResponse(200, fields)]).head?.fields, kept);
  // And never sent.
  const bytes = encodeHttpRequest({ method: "GET", scheme: "http", authority: "a", path: "/", fields });
  assertEquals(
    toHex(bytes),
    toHex(rawRequest({ scheme: "http", authority: "a", fields: kept, rest: [] })),
  );
});

Deno.test("cookie lines are joined, set-cookie lines never", () => {
  const cookies: [string, string][] = [["cookie", "a=1"], ["x", "y"], ["cookie", "b=2; c=3"], [
    "cookie",
    "d=4",
  ]];
  const joined: [string, string][] = [["cookie", "a=1; b=2; c=3; d=4"], ["x", "y"]];
  assertEquals(decode("request", [rawRequest({ fields: cookies })]).head?.fields, joined);
  const bytes = encodeHttpRequest({
    method: "GET",
    scheme: "https",
    authority: "a.example",
    path: "/",
    fields: cookies,
  });
  assertEquals(toHex(bytes), toHex(rawRequest({ fields: joined, rest: [] })));
  const set: [string, string][] = [["set-cookie", "a=1"], ["set-cookie", "b=2"]];
  assertEquals(decode("response", [rawResponse(200, set)]).head?.fields, set);
  assertEquals(decode("response", [encodeHttpResponse({ status: 200, fields: set })]).head?.fields, set);
});

// ---------------------------------------------------------------- content-length

Deno.test("content that does not meet content-length is malformed (e-45)", () => {
  const post = (length: string, rest: number[]) =>
    rawRequest({ method: "POST", fields: [["content-length", length]], rest });
  assertEquals(decode("request", [post("3", [1, 65, 2, 66, 67, 0, 0])]).content, "414243");
  assertEquals(decode("request", [post("0", [0, 0])]).content, "");
  assertMalformed("request", post("4", [3, 65, 66, 67, 0, 0]), "content-length");
  assertMalformed("request", post("2", [3, 65, 66, 67, 0, 0]), "content-length");
  assertMalformed("request", post("5", []), "content-length"); // ended early
  assertMalformed("request", post("0", [1, 65, 0]), "content-length");
  // Nothing past the declared length is handed out.
  const decoder = new HttpMessageDecoder("request");
  decoder.push(post("2", [2, 65, 66, 1, 67, 0, 0]));
  assertEquals(decoder.next()?.type, "request");
  assertEquals(decoder.next(), { type: "data", data: utf8("AB") });
  assertThrows(() => decoder.next(), HtxError);
  // Known length.
  const known = (declared: string, length: number) =>
    concat(
      new Uint8Array([1]),
      encodeVarint(200),
      encodeVarint(lines(["content-length", declared]).length),
      lines(["content-length", declared]),
      encodeVarint(length),
      new Uint8Array(length),
    );
  assert(decode("response", [known("3", 3)]).ended);
  assertMalformed("response", known("2", 3), "content-length");
  assertMalformed("response", known("4", 3), "content-length");
});

Deno.test("content-length fields that are no one number are malformed (e-45)", () => {
  for (
    const value of [
      "",
      "a",
      "-1",
      "+1",
      "1.0",
      "0x1",
      "1 1",
      "1,2",
      "1,",
      ",",
      "9007199254740992",
      "99999999999999999999",
    ]
  ) {
    assertMalformed("request", rawRequest({ fields: [["content-length", value]] }), "content-length");
    assertThrows(
      () => encodeHttpResponse({ status: 200, fields: [["content-length", value]] }),
      TypeError,
    );
  }
  // What stands between two characters is looked at once: 64 KiB of blanks were seconds, when it was not.
  const started = performance.now();
  const blanks = `1${" \t".repeat(200_000)}x,1`;
  assertThrows(
    () => encodeHttpResponse({ status: 200, fields: [["content-length", blanks]] }),
    TypeError,
  );
  assert(performance.now() - started < 5_000);
  const twice = (a: string, b: string) =>
    rawRequest({
      method: "POST",
      fields: [["content-length", a], ["content-length", b]],
      rest: [1, 65, 0, 0],
    });
  assertMalformed("request", twice("1", "2"), "content-length");
  assertMalformed("request", twice("5", "05"), "content-length");
  assertEquals(decode("request", [twice("1", "1")]).head?.fields, [["content-length", "1"]]);
  const list = rawRequest({ method: "POST", fields: [["content-length", "1, 1"]], rest: [1, 65, 0, 0] });
  assertEquals(decode("request", [list]).head?.fields, [["content-length", "1"]]);
  // Beside a transfer-encoding, the length still has to be met.
  const smuggled: [string, string][] = [["transfer-encoding", "chunked"], ["content-length", "4"]];
  assertMalformed(
    "request",
    rawRequest({ method: "POST", fields: smuggled, rest: [1, 65, 0, 0] }),
    "content-length",
  );
  // Named by connection, it is dropped, not unchecked.
  const named: [string, string][] = [["connection", "content-length"], ["content-length", "4"]];
  assertMalformed(
    "request",
    rawRequest({ method: "POST", fields: named, rest: [1, 65, 0, 0] }),
    "content-length",
  );
});

Deno.test("responses to HEAD, and 204 and 304, have empty content; HEAD and 304 may declare a length", () => {
  const fields: [string, string][] = [["content-length", "5"]];
  assert(decode("response", [rawResponse(200, fields)], { requestMethod: "HEAD" }).ended);
  assert(decode("response", [rawResponse(304, fields)]).ended);
  assertMalformed("response", rawResponse(200, fields), "content-length");
  assertMalformed("response", rawResponse(204, fields), "content-length");
  assertMalformed("response", rawResponse(200, [], [1, 65, 0, 0]), "content", { requestMethod: "HEAD" });
  assertMalformed("response", rawResponse(204, [], [1, 65, 0, 0]), "content");
  assertMalformed("response", rawResponse(304, [], [1, 65, 0, 0]), "content");
  assertEquals(decode("response", [encodeHttpResponse({ status: 204, fields })]).head?.fields, []);
});

// ---------------------------------------------------------------- limits

Deno.test("method, authority and path are held to their limits, each at its edge", () => {
  const limits = DEFAULT_HTTP_LIMITS;
  const at = { method: "M".repeat(limits.methodBytes) };
  assert(decode("request", [rawRequest(at)]).ended);
  assertOversized("request", rawRequest({ method: at.method + "M" }), 431);
  const name = "a".repeat(limits.authorityBytes);
  assert(decode("request", [rawRequest({ authority: name })]).ended);
  assertOversized("request", rawRequest({ authority: name + "a" }), 414);
  assert(decode("request", [rawRequest({ authority: "", fields: [["host", name]] })]).ended);
  assertOversized("request", rawRequest({ authority: "", fields: [["host", name + "a"]] }), 414);
  const path = "/".padEnd(limits.pathBytes, "p");
  assert(decode("request", [rawRequest({ path })]).ended);
  assertOversized("request", rawRequest({ path: path + "p" }), 414);
  // The length alone is refused: nothing is awaited or buffered for it.
  const decoder = new HttpMessageDecoder("request");
  decoder.push(concat(new Uint8Array([2]), encodeVarint(2 ** 40)));
  assertEquals(httpStatusOf(assertThrows(() => decoder.next(), HtxError)), 431);
});

Deno.test("the header section is held to 64 KiB and 256 lines, in both forms and at the edge", () => {
  const line = (size: number): [string, string] => ["x", "v".repeat(size)];
  // 1 + 1 for the name, 4 for the length of the value.
  const fits = [line(65_536 - 6)];
  const over = [line(65_536 - 5)];
  assert(decode("request", [rawRequest({ fields: fits })]).ended);
  assertOversized("request", rawRequest({ fields: over }), 431);
  assert(decode("response", [rawResponse(200, fits)]).ended);
  assertOversized("response", rawResponse(103, over), 431);
  const known = (fields: [string, string][]) => {
    const section = lines(...fields);
    return concat(new Uint8Array([1]), encodeVarint(200), encodeVarint(section.length), section);
  };
  assert(decode("response", [known(fits)]).ended);
  assertOversized("response", known(over), 431);
  const many = Array.from({ length: 256 }, (_, i) => [`x${i}`, ""] as [string, string]);
  assertEquals(decode("request", [rawRequest({ fields: many })]).head?.fields.length, 256);
  assertOversized("request", rawRequest({ fields: [...many, ["y", ""]] }), 431);
  assertOversized("response", known([...many, ["y", ""]]), 431);
  // Lines that are dropped count like any other.
  assertOversized("request", rawRequest({ fields: Array.from({ length: 257 }, () => ["te", "x"]) }), 431);
});

Deno.test("a header section that goes on for ever is refused without being buffered", () => {
  const decoder = new HttpMessageDecoder("request");
  decoder.push(rawRequest({}).subarray(0, -3));
  let pushed = 0;
  assertThrows(() => {
    for (;;) {
      decoder.push(lines(["x", "v".repeat(1000)]));
      pushed += 1004;
      assertEquals(decoder.next(), undefined);
      assert(pushed < 70_000);
    }
  }, HtxError);
  // And at once, when a length says so.
  const line = new HttpMessageDecoder("request");
  line.push(concat(rawRequest({}).subarray(0, -3), str("x"), encodeVarint(70_000)));
  assertEquals(assertThrows(() => line.next(), HtxError).code, "LIMIT_EXCEEDED");
});

Deno.test("trailers are held to 16 KiB", () => {
  const body = (size: number) =>
    concat(
      rawRequest({ method: "POST", rest: [1, 65, 0] }),
      lines(["x", "v".repeat(size)]),
      new Uint8Array([0]),
    );
  assertEquals(decode("request", [body(16_384 - 4)]).trailers.length, 1);
  assertOversized("request", body(16_384 - 3), 431);
});

Deno.test("at most 16 informational responses, and never 101", () => {
  const early = (count: number) =>
    concat(
      ...Array.from({ length: count }, (_, i) =>
        encodeHttpResponse({ status: 103, fields: [] }, { continued: i > 0 })),
      encodeHttpResponse({ status: 200, fields: [] }, { continued: true }),
    );
  assertEquals(decode("response", [early(16)]).informational.length, 16);
  assertOversized("response", early(17), 431);
  assertThrows(() => encodeHttpResponse({ status: 101, fields: [] }), TypeError);
});

Deno.test("limits are options, checked when the decoder is made", () => {
  const limits = { pathBytes: 3, headerLines: 1 };
  assert(decode("request", [rawRequest({ path: "/ab", fields: [["x", "1"]] })], { limits }).ended);
  assertOversized("request", rawRequest({ path: "/abc" }), 414, { limits });
  assertOversized("request", rawRequest({ path: "/", fields: [["x", "1"], ["y", "1"]] }), 431, { limits });
  assertThrows(() => new HttpMessageDecoder("request", { limits: { pathBytes: -1 } }), RangeError);
  assertThrows(() => new HttpMessageDecoder("request", { limits: { headerLines: NaN } }), RangeError);
});

// ---------------------------------------------------------------- encoding

Deno.test("what cannot be carried is refused before anything is sent (e-45)", () => {
  const head = { method: "GET", scheme: "http", authority: "a", path: "/", fields: [] };
  for (const method of ["", "G T", "GET\r\n", "GÉT", "G\u0100"]) {
    assertThrows(() => encodeHttpRequest({ ...head, method }), TypeError);
  }
  for (const scheme of ["", "ftp", "HTTP"]) {
    assertThrows(() => encodeHttpRequest({ ...head, scheme }), TypeError);
  }
  for (const authority of ["", "a b", "u@a", "a/b", "a\r\n"]) {
    assertThrows(() => encodeHttpRequest({ ...head, authority }), TypeError);
  }
  for (const path of ["", "a", "/a b", "/a#b", "/\r\n", "/\u0130", "*"]) {
    assertThrows(() => encodeHttpRequest({ ...head, path }), TypeError);
  }
  for (const name of ["", "a b", ":a", "a\r\n", "é", "\u0141", "a:"]) {
    assertThrows(() => encodeHttpRequest({ ...head, fields: [[name, "1"]] }), TypeError);
    assertThrows(() => encodeHttpEnd([[name, "1"]]), TypeError);
  }
  for (const value of ["a\r\nx: y", "\n1", "a\0", "\u0100"]) {
    assertThrows(() => encodeHttpRequest({ ...head, fields: [["x", value]] }), TypeError);
    assertThrows(() => encodeHttpResponse({ status: 200, fields: [["x", value]] }), TypeError);
  }
  for (const status of [0, 99, 600, 200.5, NaN]) {
    assertThrows(() => encodeHttpResponse({ status, fields: [] }), TypeError);
  }
  assertThrows(() => encodeHttpChunkHeader(0), RangeError);
  // A refusal leaves nothing behind for the next message.
  assertEquals(
    toHex(encodeHttpRequest(head)),
    toHex(rawRequest({ scheme: "http", authority: "a", rest: [] })),
  );
});

Deno.test("names are lower-cased, outer blanks taken off, Host moved into the authority", () => {
  const bytes = encodeHttpRequest({
    method: "GET",
    scheme: "https",
    authority: "",
    path: "/",
    fields: [["Host", " b.example "], ["X-Case", "\t v w "]],
  });
  assertEquals(decode("request", [bytes]).head, {
    method: "GET",
    scheme: "https",
    authority: "b.example",
    path: "/",
    fields: [["x-case", "v w"]],
  });
});

Deno.test("cookie lines are joined byte for byte: only blanks are taken off, and CR and LF refused", () => {
  const parts = { method: "GET", scheme: "https", authority: "a", path: "/" };
  const joined = (first: string) =>
    encodeHttpRequest({ ...parts, fields: [["cookie", first], ["cookie", "b=2"]] });
  // 0xA0, the last byte of "à" in UTF-8, is white space to JavaScript, none to HTTP.
  assertEquals(decode("request", [joined(" a=\xc3\xa0\t")]).head?.fields, [["cookie", "a=\xc3\xa0; b=2"]]);
  for (const end of ["\r", "\n", "\r\n"]) assertThrows(() => joined(`a=1${end}`), TypeError);
});

Deno.test("messages are encoded the same wherever in the encoder's memory they fall", () => {
  const parts = { method: "GET", scheme: "https", authority: "a.example", path: "/" };
  for (let i = 0; i < 2000; i++) {
    const fields: [string, string][] = [["x", "v".repeat(i % 97)], ["y", "w".repeat(i % 89)]];
    const bytes = encodeHttpRequest({ ...parts, fields }, { content: new Uint8Array(0) });
    assertEquals(toHex(bytes), toHex(rawRequest({ ...parts, fields })));
  }
});

Deno.test("large messages are encoded whole, and earlier results stay as they were", () => {
  const head = { method: "PUT", scheme: "https", authority: "a.example", path: "/", fields: [] };
  const kept = encodeHttpRequest(head);
  const before = toHex(kept);
  for (const size of [1, 63, 64, 8000, 16_383, 16_384, 70_000, 300_000]) {
    const content = new Uint8Array(size).fill(size & 0xff);
    const bytes = encodeHttpRequest(head, { content });
    const decoder = new HttpMessageDecoder("request");
    decoder.push(bytes);
    assertEquals(decoder.next()?.type, "request");
    const event = decoder.next();
    assert(event?.type === "data");
    assertEquals(event.data.length, size);
    assert(event.data.every((byte) => byte === (size & 0xff)));
  }
  assertEquals(toHex(kept), before);
});

// ---------------------------------------------------------------- CONNECT

Deno.test("the CONNECT form of a WebSocket keeps its upgrade field, and what follows is left alone", () => {
  const head: HttpRequestHead = {
    method: "CONNECT",
    scheme: "https",
    authority: "a.example",
    path: "/chat?x",
    fields: [["upgrade", "websocket"], ["sec-websocket-protocol", "v1"]],
  };
  assert(isWebSocketRequest(head));
  const decoder = new HttpMessageDecoder("request");
  decoder.push(concat(encodeHttpRequest(head), utf8("frames")));
  assertEquals(decoder.next(), { type: "request", head });
  assertEquals(decoder.next(), undefined);
  assertEquals(decoder.takeRemaining(), utf8("frames"));

  const response = new HttpMessageDecoder("response", { requestMethod: "CONNECT" });
  response.push(concat(encodeHttpResponse({ status: 200, fields: [] }), utf8("frames")));
  assertEquals(response.next()?.type, "response");
  assertEquals(response.next(), undefined);
  assertEquals(response.takeRemaining(), utf8("frames"));

  const refused = new HttpMessageDecoder("response", { requestMethod: "CONNECT" });
  refused.push(encodeHttpResponse({ status: 403, fields: [] }, { content: utf8("no") }));
  assertEquals(refused.next()?.type, "response");
  assertEquals(refused.next(), { type: "data", data: utf8("no") });
  assertEquals(refused.next(), { type: "end" });
});

Deno.test("a CONNECT without a target URL is read, so that it can be answered", () => {
  const bytes = concat(
    new Uint8Array([2]),
    str("CONNECT"),
    str(""),
    str("a.example:443"),
    str(""),
    new Uint8Array([0]),
  );
  assertEquals(decode("request", [bytes], {}, false).head, {
    method: "CONNECT",
    scheme: "",
    authority: "a.example:443",
    path: "",
    fields: [],
  });
});

// ---------------------------------------------------------------- streams

Deno.test("the TransformStreams carry a message through, a byte at a time", async () => {
  const events: HttpEvent[] = [
    { type: "informational", head: { status: 103, fields: [["link", "</a>"]] } },
    { type: "response", head: { status: 200, fields: [["x", "1"]] } },
    { type: "data", data: utf8("ab") },
    { type: "data", data: utf8("c") },
    { type: "trailers", fields: [["t", "2"]] },
    { type: "end" },
  ];
  const chunks = await Array.fromAsync(
    ReadableStream.from(events).pipeThrough(new HttpMessageEncoderStream()),
  );
  const pieces = bytewise(concat(...chunks));
  const back = await Array.fromAsync(
    ReadableStream.from(pieces).pipeThrough(new HttpMessageDecoderStream("response")),
  );
  assertEquals(back.map(({ type }) => type), [
    "informational",
    "response",
    "data",
    "data",
    "data",
    "trailers",
    "end",
  ]);
  assertEquals(back[1], events[1]);
});

Deno.test("the TransformStreams end where a tunnel begins", async () => {
  const connect: HttpEvent = {
    type: "request",
    head: {
      method: "CONNECT",
      scheme: "https",
      authority: "a",
      path: "/",
      fields: [["upgrade", "websocket"]],
    },
  };
  const head = encodeHttpRequest(connect.head);
  assertEquals(
    await Array.fromAsync(ReadableStream.from([connect]).pipeThrough(new HttpMessageEncoderStream())),
    [head],
  );
  const accepted: HttpEvent = { type: "response", head: { status: 200, fields: [] } };
  const cases = [
    { bytes: head, event: connect, decoder: new HttpMessageDecoderStream("request") },
    {
      bytes: encodeHttpResponse(accepted.head),
      event: accepted,
      decoder: new HttpMessageDecoderStream("response", { requestMethod: "CONNECT" }),
    },
  ];
  for (const { bytes, event, decoder } of cases) {
    let pulls = 0;
    let cancelled = false;
    const endless = new ReadableStream<Bytes>({
      pull: (controller) => controller.enqueue(pulls++ === 0 ? bytes : utf8("frames")),
      cancel: () => void (cancelled = true),
    }, { highWaterMark: 0 });
    assertEquals(await Array.fromAsync(endless.pipeThrough(decoder)), [event]);
    assert(cancelled);
  }
});

Deno.test("HttpMessageEncoderStream ends the message itself and refuses events out of order", async () => {
  const collect = (events: HttpEvent[]) =>
    Array.fromAsync(ReadableStream.from(events).pipeThrough(new HttpMessageEncoderStream()));
  const head: HttpEvent = { type: "response", head: { status: 200, fields: [] } };
  assertEquals(toHex(concat(...await collect([head]))), "0340c8000000");
  for (
    const events of [
      [{ type: "data", data: utf8("a") }],
      [head, head],
      [head, { type: "end" }, { type: "data", data: utf8("a") }],
      [{ type: "trailers", fields: [] }],
    ] as HttpEvent[][]
  ) {
    const error = await collect(events).then(() => undefined, (error) => error);
    assert(error instanceof TypeError, String(error));
  }
  const error = await collect([]).then(() => undefined, (error) => error);
  assert(error instanceof HtxError);
});

Deno.test("HttpMessageDecoderStream errors on a message that is cut off", async () => {
  const bytes = rawResponse(200, [], [5, 65]);
  const reading = Array.fromAsync(
    ReadableStream.from([bytes]).pipeThrough(new HttpMessageDecoderStream("response")),
  );
  const error = await reading.then(() => undefined, (error) => error);
  assert(error instanceof HtxError && error.code === "MALFORMED");
});

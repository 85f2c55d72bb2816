import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../core/mod.ts";
import { extractTickets, mayCarryTicket, takeFromCookies, takeFromForm, takeFromTarget } from "./extract.ts";

const T = "T".repeat(172);

Deno.test("e-49: a ticket in the query is found and gone, the rest byte for byte", () => {
  const cases: [target: string, values: string[], rest: string][] = [
    [`/?bn1=${T}`, [T], "/"],
    [`/a?x=1&bn1=${T}&y=2`, [T], "/a?x=1&y=2"],
    [`/a?bn1=${T}&y=2`, [T], "/a?y=2"],
    [`/a?x=1&bn1=${T}`, [T], "/a?x=1"],
    [`/a?&bn1=${T}`, [T], "/a?"],
    [`/a?x&&bn1=${T}&&y=`, [T], "/a?x&&&y="],
    [`/a/../b/%2e%2e//c?q=%zz+%41&bn1=${T}`, [T], "/a/../b/%2e%2e//c?q=%zz+%41"],
    [`/a?bn1=1&bn1=1`, ["1", "1"], "/a"],
    [`/a?bn1`, [""], "/a"],
    [`/a?bn1=`, [""], "/a"],
    [`/a?bn1=a=b`, ["a=b"], "/a"],
    [`/a?bn1=%41`, ["%41"], "/a"], // values are taken as sent
    [`/a?x=?bn1=${T}`, [], `/a?x=?bn1=${T}`],
    [`/bn1=${T}`, [], `/bn1=${T}`],
    [`/a?BN1=${T}`, [], `/a?BN1=${T}`],
    [`/a?xbn1=${T}&bn1x=1&bn1[]=2`, [], `/a?xbn1=${T}&bn1x=1&bn1[]=2`],
    ["/a?", [], "/a?"],
    ["*", [], "*"],
  ];
  for (const [target, values, rest] of cases) {
    assertEquals(takeFromTarget(target, "bn1"), { values, rest }, target);
  }
});

Deno.test("e-49: names are compared after percent-decoding, once", () => {
  for (const name of ["%62n1", "b%6e1", "b%6E1", "bn%31", "%62%6e%31"]) {
    assertEquals(takeFromTarget(`/a?k&${name}=${T}`, "bn1"), { values: [T], rest: "/a?k" }, name);
    assertEquals(takeFromForm(utf8(`${name}=${T}&k`), "bn1"), { values: [T], rest: utf8("k") }, name);
  }
  for (const name of ["%2562n1", "%6", "%62n1%20", "+bn1", "b%6en1", "%C1%A2n1"]) {
    assertEquals(takeFromTarget(`/a?${name}=${T}`, "bn1").values, [], name);
  }
  for (const name of ["__Host-bn1", "__Host%2dbn1", "%5F_Host-bn1", "__Host-%62n1"]) {
    assertEquals(takeFromCookies(`k=v; ${name}=${T}`, "__Host-bn1"), { values: [T], rest: "k=v" }, name);
  }
});

Deno.test("e-49: a ticket cookie is found and gone, the other cookies byte for byte", () => {
  const cases: [line: string, values: string[], rest: string | undefined][] = [
    [`c=${T}`, [T], undefined],
    [`a=1; c=${T}; b=2`, [T], "a=1; b=2"],
    [`c=${T}; b=2`, [T], "b=2"],
    [`a=1; c=${T}`, [T], "a=1"],
    [`a=1;c=${T};b="x y"`, [T], `a=1;b="x y"`],
    [`a=1;  c=${T};\tb=2`, [T], "a=1;\tb=2"],
    [`a=1; c=x; c=x`, ["x", "x"], "a=1"],
    [`a=1; c =x`, ["x"], "a=1"],
    [`a=1; c="${T}"`, [`"${T}"`], "a=1"],
    [`a=1; c`, [""], "a=1"],
    [`a=1; c= ${T}`, [` ${T}`], "a=1"],
    [`a=c=${T}`, [], `a=c=${T}`],
    [`C=${T}; cc=1`, [], `C=${T}; cc=1`],
    ["", [], ""],
    [" ; ;", [], " ; ;"],
  ];
  for (const [line, values, rest] of cases) {
    assertEquals(takeFromCookies(line, "c"), { values, rest }, line);
  }
});

Deno.test("a cookie line of blanks costs a stranger's request no more than any other", () => {
  const line = `k${" ".repeat(256 * 1024)}k=v;\t __Host-bn1 \t=${T}`;
  const started = performance.now();
  assertEquals(takeFromCookies(line, "__Host-bn1").values, [T]);
  assert(performance.now() - started < 5_000); // a minute where it grows with the square
});

Deno.test("e-49: a ticket in a form is found and gone, the other bytes untouched", () => {
  const bytes = new Uint8Array([...utf8("a=%ff&x="), 0xff, 0x00, 0xc3, ...utf8(`&bn1=${T}&y`), 0x80]);
  const rest = new Uint8Array([...utf8("a=%ff&x="), 0xff, 0x00, 0xc3, ...utf8("&y"), 0x80]);
  assertEquals(takeFromForm(bytes, "bn1"), { values: [T], rest });
  assertEquals(takeFromForm(utf8(`bn1=${T}`), "bn1"), { values: [T], rest: new Uint8Array(0) });
  const none = utf8("a=1&b=2");
  assert(takeFromForm(none, "bn1").rest === none);
});

Deno.test("extractTickets() counts every occurrence over all carriers", () => {
  const found = extractTickets({
    target: `/p?bn1=1&k=v&%62n1=2`,
    cookies: ["a=1; ticket=3", "ticket=4", "b=2; ticket=4"],
    form: utf8("bn1=5&z"),
  }, "ticket");
  assertEquals(found.tickets.map(({ carrier, text }) => `${carrier} ${text}`), [
    "cookie 3",
    "cookie 4",
    "cookie 4",
    "query 1",
    "query 2",
    "body 5",
  ]);
  assertEquals(found.target, "/p?k=v");
  assertEquals(found.cookies, ["a=1", "b=2"]);
  assertEquals(found.form && fromUtf8(found.form), "z");
});

Deno.test("mayCarryTicket(): a POST of a form with a content-length of at most 16 KiB", () => {
  const form = { method: "POST", contentType: "application/x-www-form-urlencoded", contentLength: "16384" };
  assert(mayCarryTicket(form));
  assert(mayCarryTicket({ ...form, contentType: "Application/X-WWW-Form-Urlencoded ; charset=UTF-8" }));
  assert(mayCarryTicket({ ...form, contentLength: "0000000000016384" })); // RFC 9110 §8.6: any number of digits
  assert(mayCarryTicket({ ...form, contentLength: "0", contentEncoding: null, transferEncoding: null }));
  const not = [
    { method: "GET" },
    { method: "PUT" },
    { method: "post" },
    { contentType: null },
    { contentType: "multipart/form-data; boundary=x" },
    { contentType: "application/x-www-form-urlencodedx" },
    { contentType: "text/plain; application/x-www-form-urlencoded" },
    { contentLength: null },
    { contentLength: undefined },
    { contentLength: "16385" },
    { contentLength: "" },
    { contentLength: "-1" },
    { contentLength: "+5" },
    { contentLength: "5, 5" },
    { contentLength: "0x10" },
    { contentLength: "99999999999999999999" },
    { contentLength: "9".repeat(400) },
    { transferEncoding: "chunked" },
    { contentEncoding: "gzip" },
  ];
  for (const change of not) assert(!mayCarryTicket({ ...form, ...change }), JSON.stringify(change));
});

Deno.test("what was put into a query, cookie line or form comes out again, and the rest as it was", () => {
  const pair = fc.string({ maxLength: 8 }).filter((text) => !/[&;]/.test(text) && !/bn1|%/.test(text));
  fc.assert(fc.property(fc.array(pair, { maxLength: 5 }), fc.nat(5), fc.nat(1), (pairs, at, spelling) => {
    const place = at % (pairs.length + 1);
    const name = ["bn1", "%62n1"][spelling]!;
    const query = pairs.toSpliced(place, 0, `${name}=${T}`).join("&");
    const rest = pairs.length === 0 ? "/p" : `/p?${pairs.join("&")}`;
    assertEquals(takeFromTarget(`/p?${query}`, "bn1"), { values: [T], rest });
    assertEquals(takeFromForm(utf8(query), "bn1"), { values: [T], rest: utf8(pairs.join("&")) });
  }));
  fc.assert(fc.property(fc.string(), (text) => {
    assertEquals(takeFromCookies(text, "__Host-bn1"), { values: [], rest: text });
    assertEquals(takeFromTarget(text, "bn1").rest, text);
  }));
});

Deno.test("parts and fields that are undefined are as if they were left out", () => {
  const found = extractTickets({ target: "/?bn1=T", cookies: undefined, form: undefined });
  assertEquals(found.tickets, [{ carrier: "query", text: "T" }]);
  assertEquals([found.target, found.cookies, found.form], ["/", [], undefined]);
});

// These hold for the real @std/toml as well: run them without the `workspace` entry of deno.json.
import { parse } from "@std/toml/parse";
import { stringify } from "@std/toml/stringify";
import { assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";

Deno.test("parse() gives plain objects, arrays and dates", () => {
  const value = parse(`
title = "gateway"
port = 8080
ratio = 0.5
on = true
when = 2026-11-23T10:00:00Z
list = ["a", "b"]
[limits]
streams = 100
[[upstream]]
path = "/a"
[[upstream]]
path = "/b"
`);
  assertEquals(value, {
    title: "gateway",
    port: 8080,
    ratio: 0.5,
    on: true,
    when: new Date("2026-11-23T10:00:00Z"),
    list: ["a", "b"],
    limits: { streams: 100 },
    upstream: [{ path: "/a" }, { path: "/b" }],
  });
  assertStrictEquals((value.when as Date).constructor, Date);
  assertInstanceOf(value.limits, Object);
});

Deno.test("parse() refuses what is not TOML", () => {
  for (const bad of ["a =", "a = 1\na = 2", "[a", 'a = "x']) assertThrows(() => parse(bad), Error);
});

Deno.test("stringify() writes what parse() reads", () => {
  const value = { name: 'x\n"y"', n: 1, on: false, list: [1, 2], table: { a: "b", deep: { c: 1.5 } } };
  assertEquals(parse(stringify(value)), value);
});

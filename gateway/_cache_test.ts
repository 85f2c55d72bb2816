import { assertEquals } from "@std/assert";
import { privately } from "./_cache.ts";

const after = (...values: string[]) =>
  privately(values.map((value): [string, string] => ["cache-control", value]));

Deno.test("privately() lets no shared cache keep an answer, whatever its application said", () => {
  assertEquals(after(), [["cache-control", "private"]]);
  assertEquals(after("public, max-age=600, s-maxage=3600"), [["cache-control", "max-age=600, private"]]);
  assertEquals(after("Public", "S-MaxAge=1 , immutable"), [["cache-control", "immutable, private"]]);
  assertEquals(
    privately([["cdn-cache-control", "max-age=60"], ["surrogate-control", "max-age=60"], ["etag", '"1"']]),
    [["etag", '"1"'], ["cache-control", "private"]],
  );
});

Deno.test("privately() leaves alone what no shared cache keeps anyway", () => {
  assertEquals(after("no-store"), [["cache-control", "no-store"]]);
  assertEquals(after("Private, max-age=60"), [["cache-control", "Private, max-age=60"]]);
});

Deno.test("privately() takes a qualified private for what it is: some fields of the answer, not all of it", () => {
  assertEquals(after('private="a, public", public, max-age=1'), [[
    "cache-control",
    'private="a, public", max-age=1, private',
  ]]);
});

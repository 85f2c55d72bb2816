// These hold for the real @std/assert as well: run them without the `workspace` entry of deno.json.
import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  AssertionError,
  assertIsError,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertNotMatch,
  assertNotStrictEquals,
  assertObjectMatch,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  equal,
  fail,
  unreachable,
} from "@std/assert";

/** The message with which `fn` fails, without the runtimes' colours. */
function failure(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof AssertionError) return error.message;
    throw error;
  }
  throw new Error("the assertion held");
}

Deno.test("equal() compares structures as @std/assert does", () => {
  class Point {
    constructor(readonly x: number) {}
  }
  const cycle = (): unknown => {
    const a: Record<string, unknown> = { n: 1 };
    a.self = a;
    return a;
  };
  const same: [unknown, unknown][] = [
    [0, -0],
    [NaN, NaN],
    [{ a: { b: [1, 2n, "x"] } }, { a: { b: [1, 2n, "x"] } }],
    [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    [new Uint8Array([1, 2]), new Uint8Array([9, 1, 2]).subarray(1)],
    [new Set([{ a: 1 }, { b: 2 }]), new Set([{ b: 2 }, { a: 1 }])],
    [new Map([[{ k: 1 }, [1]]]), new Map([[{ k: 1 }, [1]]])],
    [new Date(5), new Date(5)],
    [new URL("http://a/b"), new URL("http://a/b")],
    [/a/g, /a/g],
    [new Point(1), new Point(1)],
    [cycle(), cycle()],
  ];
  for (const [a, b] of same) assert(equal(a, b), Deno.inspect([a, b]));
  const different: [unknown, unknown][] = [
    [1, "1"],
    [null, undefined],
    [{ a: undefined }, {}],
    [[1, 2], [2, 1]],
    [[1], [1, 1]],
    [new Uint8Array([1, 2]), new Uint8Array([1, 3])],
    [new Uint8Array([1, 2]), [1, 2]],
    [new Set([1]), new Set([2])],
    [new Map([[1, 2]]), new Map([[1, 3]])],
    [new Date(5), new Date(6)],
    [/a/g, /a/],
    [new Point(1), { x: 1 }],
    [{ [Symbol.for("s")]: 1 }, { [Symbol.for("s")]: 2 }],
  ];
  for (const [a, b] of different) assertFalse(equal(a, b), Deno.inspect([a, b]));
});

Deno.test("equality assertions hold or fail with a message", () => {
  assertEquals(new Uint8Array([1]), new Uint8Array([1]));
  assertNotEquals({ a: 1 }, { a: 2 });
  const one = { a: 1 };
  assertStrictEquals(one, one);
  assertNotStrictEquals(one, { a: 1 });
  assertStringIncludes(failure(() => assertEquals(1, 2)), "Values are not equal.");
  assertStringIncludes(failure(() => assertEquals(1, 2, "why")), "Values are not equal: why");
  assertStringIncludes(failure(() => assertStrictEquals<unknown>(0, -0)), "Values");
  assertStringIncludes(failure(() => assertStrictEquals({}, {})), "not reference-equal");
  failure(() => assertNotEquals(1, 1));
  failure(() => assertNotStrictEquals(one, one));
});

Deno.test("simple assertions hold or fail", () => {
  assert(1);
  assertFalse("");
  assertExists(0);
  assertInstanceOf(new RangeError(), Error);
  assertMatch("abc", /b/);
  assertNotMatch("abc", /d/);
  assertStringIncludes("abc", "bc");
  assertArrayIncludes([{ a: 1 }, { b: 2 }], [{ b: 2 }]);
  assertGreater(2n, 1n);
  assertGreaterOrEqual(2, 2);
  assertLess("a", "b");
  assertLessOrEqual(1, 1);
  assertAlmostEquals(1, 1 + 1e-8);
  assertAlmostEquals(1, 1.4, 0.5);
  assertIsError(new RangeError("x is 1"), RangeError, /x is \d/);
  for (
    const fn of [
      () => assert(0),
      () => assertFalse(1),
      () => assertExists(null),
      () => assertInstanceOf(new Error(), RangeError),
      () => assertMatch("a", /b/),
      () => assertNotMatch("a", /a/),
      () => assertStringIncludes("a", "b"),
      () => assertArrayIncludes([1], [2]),
      () => assertGreater(1, 1),
      () => assertGreaterOrEqual(1, 2),
      () => assertLess(1, 1),
      () => assertLessOrEqual(2, 1),
      () => assertAlmostEquals(1, 1.1),
      () => assertIsError("text"),
      () => fail("on purpose"),
      () => unreachable(),
    ]
  ) failure(fn);
  assertStringIncludes(failure(() => fail("on purpose")), "Failed assertion: on purpose");
});

Deno.test("assertObjectMatch() looks at what is expected only", () => {
  assertObjectMatch({ a: 1, b: { c: [1, { d: 2, e: 3 }], f: 4 } }, { b: { c: [1, { d: 2 }] } });
  failure(() => assertObjectMatch({ a: 1 }, { a: 2 }));
  failure(() => assertObjectMatch({ a: 1 }, { b: 1 }));
  failure(() => assertObjectMatch({ a: [1] }, { a: [1, 2] }));
});

Deno.test("assertThrows() returns the error and checks class and message", () => {
  const error = assertThrows(
    () => {
      throw new RangeError("length is 70000");
    },
    RangeError,
    "70000",
  );
  assertEquals(error.message, "length is 70000");
  const thrower = (): never => {
    throw new TypeError("no");
  };
  assertThrows(thrower);
  assertStringIncludes(failure(() => assertThrows(() => {})), "Expected function to throw.");
  assertStringIncludes(failure(() => assertThrows(thrower, RangeError)), 'instance of "RangeError"');
  assertStringIncludes(
    failure(() => assertThrows(thrower, TypeError, "yes")),
    'Expected error message to include "yes", but got "no"',
  );
});

Deno.test("assertRejects() awaits, returns the error and checks class and message", async () => {
  const error = await assertRejects(() => Promise.reject(new RangeError("late")), RangeError, "late");
  assertEquals(error.message, "late");
  const messages: string[] = [];
  for (
    const wrong of [
      () => assertRejects(() => Promise.resolve(1)),
      () => assertRejects(() => Promise.reject(new TypeError("no")), RangeError),
      () => assertRejects(() => Promise.reject(new TypeError("no")), TypeError, "yes"),
      () =>
        assertRejects(() => {
          throw new TypeError("too early");
        }),
    ]
  ) {
    messages.push((await assertRejects(wrong, AssertionError)).message);
  }
  assertStringIncludes(messages[0]!, "Expected function to reject.");
  assertStringIncludes(messages[3]!, "Function throws when expected to reject.");
});

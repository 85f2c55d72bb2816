// These hold for the real @std/cli as well: run them without the `workspace` entry of deno.json.
import { parseArgs } from "@std/cli/parse-args";
import { assertEquals } from "@std/assert";

Deno.test("parseArgs() without options guesses", () => {
  assertEquals(parseArgs(["--foo", "--bar=baz", "--n", "3", "-v", "./x.txt", "7"]), {
    foo: true,
    bar: "baz",
    n: 3,
    v: "./x.txt",
    _: [7],
  });
  assertEquals(parseArgs(["-abc", "-n5", "-p=8", "-"]), { a: true, b: true, c: true, n: 5, p: 8, _: ["-"] });
  assertEquals(parseArgs(["--hex", "0x10", "--not", "1.2.3"]), { hex: 16, not: "1.2.3", _: [] });
});

Deno.test("parseArgs() reads named options with their types", () => {
  const args = parseArgs(["--port", "8080", "--host", "::1", "-h", "echo", "1"], {
    string: ["port", "host", "key"],
    boolean: ["help", "verbose"],
    alias: { help: "h" },
    default: { host: "127.0.0.1" },
  });
  const port: string | undefined = args.port;
  const host: string = args.host;
  const help: boolean = args.help;
  const short: boolean = args.h;
  assertEquals([port, host, help, short, args.key, args.verbose], [
    "8080",
    "::1",
    true,
    true,
    undefined,
    false,
  ]);
  assertEquals(args._, ["echo", 1]);
});

Deno.test("parseArgs() keeps text text and applies defaults", () => {
  const args = parseArgs(["--id=007", "5"], { string: ["id"], default: { size: 10 } });
  assertEquals(args, { id: "007", size: 10, _: [5] });
  assertEquals(parseArgs(["--name"], { string: "name" }).name, "");
});

Deno.test("parseArgs() collects, negates and takes booleans with values", () => {
  const args = parseArgs(["--f", "a", "--f=b", "--no-colour", "--fast", "false", "--slow=false"], {
    string: ["f"],
    collect: ["f"],
    boolean: ["colour", "fast", "slow"],
    negatable: ["colour"],
    default: { colour: true },
  });
  const list: string[] = args.f;
  assertEquals(list, ["a", "b"]);
  assertEquals([args.colour, args.fast, args.slow], [false, false, false]);
  assertEquals(parseArgs([], { string: ["f"], collect: ["f"] }).f, []);
});

Deno.test("parseArgs() stops at -- and, when asked, at the first positional", () => {
  assertEquals(parseArgs(["a", "--", "--b"]), { _: ["a", "--b"] });
  assertEquals(parseArgs(["a", "--", "--b"], { "--": true }), { _: ["a"], "--": ["--b"] });
  assertEquals(parseArgs(["--x", "y", "run", "--z"], { stopEarly: true, string: ["x"] }), {
    x: "y",
    _: ["run", "--z"],
  });
});

Deno.test("parseArgs() shows unknown arguments to the caller", () => {
  const seen: string[] = [];
  const args = parseArgs(["--port", "1", "--prot", "2", "pos"], {
    string: ["port"],
    unknown: (arg) => {
      seen.push(arg);
      return false;
    },
  });
  assertEquals(seen, ["--prot", "pos"]);
  assertEquals(args, { port: "1", _: [] });
});

import { assert, assertEquals, assertMatch } from "@std/assert";

/** Runs the example without any permission. */
async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const path = new URL("./overlay.ts", import.meta.url).pathname;
  const command = new Deno.Command("deno", {
    args: ["run", "--no-prompt", "--quiet", path, ...args],
    env: { NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

const SUBJECTS = [
  "identity",
  "paths",
  "bootstrap",
  "privacy",
  "trust",
  "naming",
  "payments",
  "governance",
  "transition",
];

Deno.test("examples/overlay.ts walks through every subject without a permission", async () => {
  const { code, stdout, stderr } = await run();
  assertEquals([code, stderr], [0, ""]);
  assertEquals([...stdout.matchAll(/^(\w+): /gm)].map(([, subject]) => subject), SUBJECTS);
  for (
    const line of [
      /traffic moves to +mobile, by 10\.3 s/,
      /the fibre is probed at \(s\) +11, 13, 17, 27/,
      /somebody else's key +refused: other-key/,
      /with a hop exchanged +refused: other-hops/,
      /the same, said to be 70 % +refused: weight-inflated/,
      /spent again +refused: spent/,
      /failed ack-as-share/,
      /a node of AS 0 abstains +accepted/,
      /the same map again +refused: replayed/,
    ]
  ) assertMatch(stdout, line);
});

Deno.test("examples/overlay.ts shows one subject, helps, and ends with status 2 on bad arguments", async () => {
  const [one, help, ...bad] = await Promise.all([
    run("trust"),
    run("--help"),
    run("astrology"),
    run("trust", "more"),
    run("--nope"),
  ]);
  assertEquals([...one!.stdout.matchAll(/^(\w+): /gm)].map(([, subject]) => subject), ["trust"]);
  assertEquals([one!.code, help!.code], [0, 0]);
  for (const subject of SUBJECTS) assert(help!.stdout.includes(subject));
  for (const { code, stdout, stderr } of bad) {
    assertEquals([code, stdout], [2, ""]);
    assertMatch(stderr, /^error: .+\n$/);
  }
});

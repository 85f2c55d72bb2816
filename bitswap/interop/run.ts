/**
 * Installs what these tests stand beside, and runs them. Where it cannot be installed they are skipped, and that is
 * said.
 *
 *     deno task interop
 *
 * The packages are named in packages.json rather than in deno.json: what deno.json names, `deno task` installs before
 * any task, and fails where it cannot.
 *
 * @module
 */

const here = import.meta.dirname!;

/** The compliance suite imports `aegir/chai` without depending on it; this is what it gets. */
const AEGIR: Record<string, string> = {
  "package.json": JSON.stringify({
    name: "aegir",
    version: "0.0.0",
    type: "module",
    exports: { "./chai": "./chai.js" },
  }),
  "chai.js": `import chai from "chai";
import asPromised from "chai-as-promised";
import parentheses from "chai-parentheses";
chai.use(asPromised);
chai.use(parentheses);
export const expect = chai.expect;
export const assert = chai.assert;
`,
};

async function deno(...args: string[]): Promise<Deno.CommandStatus> {
  return await new Deno.Command("deno", { args, cwd: here }).spawn().status;
}

if (!(await deno("install", "--quiet", "--config", "packages.json")).success) {
  console.log(
    "skipped: Helia and the compliance suite cannot be installed here",
  );
  console.log("0 passed | 0 failed");
  Deno.exit(0);
}
await Deno.mkdir(`${here}/node_modules/aegir`, { recursive: true });
for (const [name, text] of Object.entries(AEGIR)) {
  await Deno.writeTextFile(`${here}/node_modules/aegir/${name}`, text);
}
Deno.exit((await deno("test", "-A", "--config", "packages.json", ...Deno.args)).code);

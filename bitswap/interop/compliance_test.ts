/** The ecosystem's own suite for blockstores, on what is wrapped and written here. */

import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { MemoryBlockstore as EcosystemMemory } from "blockstore-core/memory";
import { MemoryBlockstore, VerifiedBlockstore } from "../blockstore.ts";
import { openDirectory } from "../directory.ts";

// The suite is written for a runner that has these as globals.
Object.assign(globalThis, {
  after,
  afterEach,
  before,
  beforeEach,
  describe,
  it,
});
const { interfaceBlockstoreTests } = await import("interface-blockstore-tests");

describe("VerifiedBlockstore over memory", () => {
  interfaceBlockstoreTests({
    setup: () => new VerifiedBlockstore(),
    teardown: () => {},
  });
});

describe("VerifiedBlockstore over blockstore-core", () => {
  interfaceBlockstoreTests({
    setup: () => new VerifiedBlockstore(new EcosystemMemory()),
    teardown: () => {},
  });
});

describe("MemoryBlockstore by itself", () => {
  interfaceBlockstoreTests({
    setup: () => new MemoryBlockstore(),
    teardown: () => {},
  });
});

describe("openDirectory()", () => {
  let path = "";
  interfaceBlockstoreTests({
    setup: async () => {
      path = await Deno.makeTempDir();
      return await openDirectory(path, { sync: false });
    },
    teardown: () => Deno.remove(path, { recursive: true }),
  });
});

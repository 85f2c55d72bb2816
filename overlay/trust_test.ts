import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { requiredHops } from "./privacy.ts";
import {
  peerTrust,
  TRUST_MIN_AS_GROUPS,
  TRUST_WINDOW_DAYS,
  type TrustInputs,
  type UptimeAttestation,
} from "./trust.ts";

const TODAY = 20_000;
const groups = (count: number, up = true, day = TODAY): UptimeAttestation[] =>
  Array.from({ length: count }, (_, i) => ({ asGroup: `g${i}`, day, up }));

function inputs(change: Partial<TrustInputs> = {}): TrustInputs {
  return {
    attestations: groups(8),
    today: TODAY,
    observations: { good: 0, bad: 0 },
    stake: { sat: 0n, cap: 1_000n },
    ...change,
  };
}

Deno.test("peerTrust() weighs uptime 0.5, relaying 0.3, stake 0.2", () => {
  const rows: [Partial<TrustInputs>, number][] = [
    [{}, 0.65], // 0.5 + 0.3 / 2
    [{ attestations: [] }, 0.15],
    [{ attestations: groups(8, false) }, 0.15],
    [{ attestations: [...groups(4), ...groups(8, false).slice(4)] }, 0.4],
    [{ stake: { sat: 1_000n, cap: 1_000n } }, 0.85],
    [{ stake: { sat: 1_001n, cap: 1_000n } }, 0.85],
    [{ stake: { sat: 500n, cap: 1_000n } }, 0.75],
    [{ observations: { good: 1, bad: 0 } }, 0.7],
    [{ observations: { good: 0, bad: 1 } }, 0.6],
    [{ observations: { good: 8, bad: 0 }, stake: { sat: 10n ** 30n, cap: 10n ** 30n } }, 0.97],
    [{ attestations: [], observations: { good: 0, bad: 2 ** 50 } }, 0],
  ];
  for (const [change, value] of rows) {
    assert(
      Math.abs(peerTrust(inputs(change)).value - value) < 1e-12,
      `${peerTrust(inputs(change)).value} ${value}`,
    );
  }
});

Deno.test("uptime counts from 8 AS groups on, however many attest within one group", () => {
  assertEquals(TRUST_MIN_AS_GROUPS, 8);
  assertEquals(peerTrust(inputs({ attestations: groups(7) })).uptime, 0);
  assertEquals(peerTrust(inputs({ attestations: groups(8) })).uptime, 1);
  const crowd = Array.from({ length: 100 }, () => groups(7)).flat();
  assertEquals(peerTrust(inputs({ attestations: crowd })).uptime, 0);
  const outvoted = [...Array.from({ length: 100 }, () => groups(1, false)).flat(), ...groups(8).slice(1)];
  assertEquals(peerTrust(inputs({ attestations: outvoted })).uptime, 0.875);
});

Deno.test("uptime looks at the 30 days that end today", () => {
  assertEquals(TRUST_WINDOW_DAYS, 30);
  const rows: [number, number][] = [[TODAY + 1, 0], [TODAY, 1], [TODAY - 29, 1], [TODAY - 30, 0]];
  for (const [day, uptime] of rows) {
    assertEquals(peerTrust(inputs({ attestations: groups(8, true, day) })).uptime, uptime);
  }
  const days = Array.from({ length: 30 }, (_, i) => groups(9, i % 3 !== 0, TODAY - i)).flat();
  assertEquals(peerTrust(inputs({ attestations: days })).uptime, 2 / 3);
});

Deno.test("what adds up to 0.8 is 0.8, and is trusted", () => {
  const exact = peerTrust(inputs({ observations: { good: 0, bad: 1 }, stake: { sat: 1n, cap: 1n } }));
  assertEquals(exact.value, 0.8); // 0.5 + 0.3 / 3 + 0.2
  assertEquals(requiredHops({ trust: exact.value }).hops, 0);
  const cap = 10n ** 15n;
  const below = peerTrust(inputs({ observations: { good: 0, bad: 1 }, stake: { sat: cap - 1n, cap } }));
  assert(below.value < 0.8);
  assertEquals(requiredHops({ trust: below.value }).hops, 2);
});

Deno.test("peerTrust() refuses counts and stakes that are none", () => {
  for (
    const bad of [
      { observations: { good: -1, bad: 0 } },
      { observations: { good: 0, bad: 0.5 } },
      { stake: { sat: -1n, cap: 1n } },
      { stake: { sat: 1n, cap: 0n } },
      { today: NaN },
      { attestations: [{ asGroup: "g", day: 1.5, up: true }] },
    ]
  ) assertThrows(() => peerTrust(inputs(bad)), RangeError);
});

Deno.test("trust lies in [0, 1] and never falls when one input improves", () => {
  const attestation = fc.record({
    asGroup: fc.constantFrom(..."abcdefghij"),
    day: fc.integer({ min: TODAY - 31, max: TODAY + 1 }),
    up: fc.boolean(),
  });
  const given = fc.record({
    attestations: fc.array(attestation, { maxLength: 60 }),
    today: fc.constant(TODAY),
    observations: fc.record({ good: fc.nat(1000), bad: fc.nat(1000) }),
    stake: fc.record({
      sat: fc.bigInt({ min: 0n, max: 10n ** 12n }),
      cap: fc.bigInt({ min: 1n, max: 10n ** 12n }),
    }),
  });
  fc.assert(
    fc.property(
      given,
      fc.nat(),
      attestation,
      fc.bigInt({ min: 0n, max: 10n ** 12n }),
      (before, at, more, sat) => {
        const { value } = peerTrust(before);
        assert(value >= 0 && value <= 1);
        const { attestations, observations, stake } = before;
        const better: TrustInputs[] = [
          { ...before, attestations: [...attestations, { ...more, up: true }] },
          { ...before, observations: { ...observations, good: observations.good + 1 } },
          { ...before, observations: { ...observations, bad: Math.max(0, observations.bad - 1) } },
          { ...before, stake: { ...stake, sat: stake.sat + sat } },
        ];
        if (attestations.length > 0) {
          const i = at % attestations.length;
          better.push({ ...before, attestations: attestations.with(i, { ...attestations[i]!, up: true }) });
        }
        for (const inputs of better) assert(peerTrust(inputs).value >= value);
      },
    ),
  );
});

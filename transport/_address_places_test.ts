import { assert, assertEquals } from "@std/assert";
import { AddressPlaces } from "./_address_places.ts";

Deno.test("an address has so many places, and one that is left is the next one's", () => {
  const places = new AddressPlaces(2);
  const [first, second] = [places.take("192.0.2.1"), places.take("192.0.2.1")];
  assert(first !== undefined && second !== undefined);
  assertEquals(places.take("192.0.2.1"), undefined);
  assert(places.take("192.0.2.2") !== undefined);
  first();
  assert(places.take("192.0.2.1") !== undefined);
  assertEquals(places.take("192.0.2.1"), undefined);
});

Deno.test("an IPv4 address counts however it is written; of IPv6 all of a /64 is one", () => {
  const places = new AddressPlaces(1);
  assert(places.take("192.0.2.1") !== undefined);
  assertEquals(places.take("::ffff:192.0.2.1"), undefined);
  assert(places.take("2001:db8::1") !== undefined);
  assertEquals(places.take("2001:db8:0:0:ffff::2"), undefined);
  assert(places.take("2001:db8:0:1::1") !== undefined);
  assert(places.take("fe80::1%eth0") !== undefined);
  assertEquals(places.take("fe80::2%eth1"), undefined);
});

Deno.test("without a bound, and where a carrier knows no addresses, nobody is refused", () => {
  const [unbounded, bounded] = [new AddressPlaces(Infinity), new AddressPlaces(1)];
  for (let i = 0; i < 100; i++) {
    assert(unbounded.take("192.0.2.1") !== undefined);
    assert(bounded.take(undefined) !== undefined);
  }
});

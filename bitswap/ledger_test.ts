import { assertEquals } from "@std/assert";
import { LedgerBook } from "./ledger.ts";

Deno.test("LedgerBook takes no more than the limit in a window, and all of it again in the next", () => {
  const book = new LedgerBook({ maxServedBytes: 100, servedBytesWindowMs: 1000 });
  const entry = book.open("peer", 5000);
  assertEquals([60, 41, 40, 1].map((bytes) => book.take(entry, bytes, 5999)), [true, false, true, false]);
  assertEquals([100, 1].map((bytes) => book.take(entry, bytes, 6000)), [true, false]);
});

Deno.test("LedgerBook keeps no peer waiting for longer than a window when the clock is set back or fails", () => {
  const book = new LedgerBook({ maxServedBytes: 100, servedBytesWindowMs: 1000 });
  const entry = book.open("peer", 1e9);
  assertEquals(book.take(entry, 100, 1e9), true);
  assertEquals([100, 1].map((bytes) => book.take(entry, bytes, 5000)), [true, false]);
  assertEquals(book.take(entry, 1, NaN), false);
  assertEquals(book.take(entry, 100, 6000), true);
  const late = book.open("late", NaN);
  assertEquals([100, 1].map((bytes) => book.take(late, bytes, NaN)), [true, false]);
  assertEquals(book.take(late, 100, 5000), true);
});

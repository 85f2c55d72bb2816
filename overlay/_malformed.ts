import { HtxError } from "./_core.ts";

/** The error for outside input that does not parse: names the offending field, repeats nothing of its content. */
export function malformed(what: string, field: string, why: string): HtxError {
  return new HtxError("MALFORMED", `Cannot parse ${what}: ${field} ${why}`, { field });
}

/** Checks a byte string of fixed length that came from outside. */
export function requireBytes(
  value: unknown,
  length: number,
  what: string,
  field: string,
): asserts value is Uint8Array {
  if (!(value instanceof Uint8Array)) throw malformed(what, field, "is not a byte string");
  if (value.length !== length) throw malformed(what, field, `is ${value.length} bytes, not ${length}`);
}

/** Checks an argument of the caller's own making. */
export function checkBytes(value: Uint8Array, length: number, what: string): void {
  if (value.length !== length) {
    throw new TypeError(`Cannot use ${what}: ${value.length} bytes, not ${length}`);
  }
}

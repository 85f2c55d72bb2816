/**
 * Stand-in for `jsr:@std/toml/parse`, on smol-toml. Not published.
 *
 * @module
 */
import { parse as parseToml, TomlDate } from "smol-toml";

/**
 * Parses a TOML document to plain objects, arrays and `Date`s.
 *
 * @throws {SyntaxError} when the text is not TOML
 */
export function parse(tomlString: string): Record<string, unknown> {
  let table: Record<string, unknown>;
  try {
    table = parseToml(tomlString);
  } catch (cause) {
    throw new SyntaxError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
  return plainTable(table);
}

/** smol-toml's tables have no prototype and its dates a class of their own; the real package gives ordinary ones. */
function plain(value: unknown): unknown {
  if (value instanceof TomlDate) {
    // a bare time of day stays text, as in the real package
    return value.isTime() ? value.toISOString() : new Date(value.getTime());
  }
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null) return plainTable(value);
  return value;
}

function plainTable(table: object): Record<string, unknown> {
  const copy: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(table)) {
    // defined, not assigned: a key "__proto__" is a key
    Object.defineProperty(copy, key, {
      value: plain(value),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return copy;
}

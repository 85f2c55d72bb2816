/**
 * Stand-in for `jsr:@std/toml/stringify`, on smol-toml. Not published.
 *
 * @module
 */
import { stringify as stringifyToml } from "smol-toml";

/** A TOML document that {@linkcode parse} reads back to the same value. */
export function stringify(obj: Record<string, unknown>): string {
  return stringifyToml(obj);
}

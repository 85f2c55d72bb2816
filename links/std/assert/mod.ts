/**
 * Stand-in for `jsr:@std/assert`, for machines that cannot reach JSR: the assertions this project calls, with the
 * names, types and messages of the real package. Not published.
 *
 * @module
 */
export { equal } from "./equal.ts";
export * from "./assertions.ts";

/**
 * Control characters in the fields of HTTP.
 *
 * @module
 */

// deno-lint-ignore no-control-regex -- control characters are what is looked for
const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f]/;

/**
 * Whether a field's value holds a control character other than a tab (RFC 9110 §5.5: such a value is invalid). `Headers`
 * takes them; Node's server refuses to send them, and Deno's ends the whole process.
 */
export function hasControls(value: string): boolean {
  return CONTROLS.test(value);
}

/** The value with a blank in the place of each, as RFC 9110 §5.5 has who passes such a value on. */
export function withoutControls(value: string): string {
  return CONTROLS.test(value)
    ? Array.from(value, (char) => CONTROLS.test(char) ? " " : char).join("")
    : value;
}

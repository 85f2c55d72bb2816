/**
 * Blanks around text, as HTTP means them.
 *
 * @module
 */

/** RFC 9110 §5.6.3: OWS is a space or a tab. */
export function isBlank(c: number): boolean {
  return c === 0x20 || c === 0x09;
}

/**
 * The text without the blanks around it. `trim()` would take bytes of values away (0xA0 ends an "à" in UTF-8), and a
 * regular expression for the blanks at the end takes time that grows with the square of those within.
 */
export function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

/**
 * The text without the spaces and tabs around it (RFC 9110 §5.6.3). A regular expression for those at the end takes time
 * that grows with the square of the blanks within, and strangers send the text.
 */
export function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text[start])) start++;
  while (end > start && isBlank(text[end - 1])) end--;
  return text.slice(start, end);
}

function isBlank(character: string | undefined): boolean {
  return character === " " || character === "\t";
}

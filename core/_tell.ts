/**
 * Calling the hooks that only listen.
 *
 * @module
 */

/**
 * Tells a hook of the caller's. One that fails, at once or later, takes nobody with it: `onFailure` is told, if there
 * is one, and where that fails too nobody is.
 */
export function tell<T>(
  hook: ((value: T) => unknown) | undefined,
  value: T,
  onFailure?: (error: unknown) => unknown,
): void {
  const fail = (error: unknown) => {
    if (onFailure !== undefined) tell(onFailure, error);
  };
  try {
    Promise.resolve(hook?.(value)).catch(fail); // an async function is a hook, too
  } catch (error) {
    fail(error);
  }
}

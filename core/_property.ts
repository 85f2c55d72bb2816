/** What an object of the runtime's or a package's has under a name, where its type does not say. */
export function property(value: unknown, name: PropertyKey): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

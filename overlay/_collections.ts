// `Set.prototype.isDisjointFrom` and `Map.groupBy` for runtimes that lack them yet, such as Node 20.

/** Whether two sets have nothing in common. */
export function areDisjoint<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  for (const item of a) if (b.has(item)) return false;
  return true;
}

/** The items by their key, keys and items in the order they came. */
export function groupBy<T, K>(items: Iterable<T>, key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}

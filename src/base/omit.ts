/** The record without some of its fields. */
export function omit<T extends object, K extends keyof T>(from: T, ...names: readonly K[]): Omit<T, K> {
  const kept = Object.entries(from).filter(([name]) => !(names as readonly PropertyKey[]).includes(name));
  return Object.fromEntries(kept) as Omit<T, K>;
}

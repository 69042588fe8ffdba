/** What decoding calls are given besides tokens, laid out as the program takes it. */

/** Numbers at..at+count of each row, as [steps, b] with zeros at the end. */
export function uniformsOf(rows: readonly Float32Array[], at: number, count: number, steps: number): Float32Array {
  const b = rows.length;
  const out = new Float32Array(steps * b);
  for (let k = 0; k < count; k++) rows.forEach((row, i) => (out[k * b + i] = row[at + k]!));
  return out;
}

/** [b, v]: 1 where a row has had an id. */
export function historyMask(history: readonly Int32Array[], b: number, v: number): Float32Array {
  const mask = new Float32Array(b * v);
  history.forEach((ids, i) => ids.forEach((id) => (mask[i * v + id] = 1)));
  return mask;
}

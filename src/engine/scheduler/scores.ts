/** What a scheduler does to the scores of a row, where no program does it. */

/** Removes ids whose bit is 0. */
export function allowOnly(mask: Int32Array | null, scores: Float32Array): void {
  if (!mask) return;
  for (let id = 0; id < scores.length; id++) if (!(mask[id >>> 5]! & (1 << (id & 31)))) scores[id] = -Infinity;
}

/** Subtracts from the scores of ids that were chosen before. @param ids of the prompt, then those that were chosen */
export function penalise(
  scores: Float32Array,
  ids: readonly number[],
  prompt_length: number,
  presence_penalty: number,
  frequency_penalty: number,
): void {
  const counts = new Map<number, number>();
  for (const id of ids.slice(prompt_length)) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) scores[id]! -= presence_penalty + frequency_penalty * count;
}

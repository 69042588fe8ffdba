/**
 * Warpers: logits processors that only act when sampling; each narrows or flattens the distribution. Names and rules
 * are those of transformers' generation/logits_process.py (5.18). `min_tokens_to_keep` is more than 1 in beam sampling,
 * where an end token must not be the only one left.
 */
import type { LogitsProcessor } from './processors.js';
import { entropy, kthLargest, order, softmax } from './scores.js';

/** Removes ids less probable than a bound, but not the best min_tokens_to_keep. */
function cutBelow(scores: Float32Array, probabilities: Float64Array, bound: number, min_tokens_to_keep: number): void {
  const safe = kthLargest(scores, Math.min(min_tokens_to_keep, scores.length));
  for (let i = 0; i < scores.length; i++) if (probabilities[i]! < bound && scores[i]! < safe) scores[i] = -Infinity;
}

/** Divides scores by the temperature. */
export class TemperatureLogitsWarper implements LogitsProcessor {
  private readonly temperature: number;
  constructor(temperature: number) {
    this.temperature = Math.fround(temperature); // as torch divides float32, and as programs do
  }
  process(_input_ids: readonly number[], scores: Float32Array): void {
    for (let i = 0; i < scores.length; i++) scores[i]! /= this.temperature;
  }
}

/** Keeps the top_k best; ties with the last of them stay. */
export class TopKLogitsWarper implements LogitsProcessor {
  private readonly top_k: number;
  constructor(top_k: number, min_tokens_to_keep = 1) {
    this.top_k = Math.max(top_k, min_tokens_to_keep);
  }
  process(_input_ids: readonly number[], scores: Float32Array): void {
    if (this.top_k >= scores.length) return;
    const least = kthLargest(scores, this.top_k);
    for (let i = 0; i < scores.length; i++) if (scores[i]! < least) scores[i] = -Infinity;
  }
}

/** Keeps the fewest best ids whose probabilities sum to top_p or more (nucleus sampling, arXiv:1904.09751). */
export class TopPLogitsWarper implements LogitsProcessor {
  constructor(
    private readonly top_p: number,
    private readonly min_tokens_to_keep = 1,
  ) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    const probabilities = softmax(scores);
    const worstFirst = order(scores, 'ascending');
    let sum = 0;
    for (let k = 0; k < worstFirst.length - this.min_tokens_to_keep; k++) {
      sum += probabilities[worstFirst[k]!]!;
      if (sum > 1 - this.top_p) break;
      scores[worstFirst[k]!] = -Infinity;
    }
  }
}

/** Keeps ids whose probability is at least min_p times the best one's (arXiv:2407.01082). */
export class MinPLogitsWarper implements LogitsProcessor {
  constructor(
    private readonly min_p: number,
    private readonly min_tokens_to_keep = 1,
  ) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    const probabilities = softmax(scores);
    const best = probabilities.reduce((a, b) => Math.max(a, b), 0);
    cutBelow(scores, probabilities, this.min_p * best, this.min_tokens_to_keep);
  }
}

/** Keeps the best ids while their share of the entropy is at most top_h of the whole (arXiv:2509.02510); of the best 100 only. */
export class TopHLogitsWarper implements LogitsProcessor {
  constructor(private readonly top_h: number) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    const best = order(scores, 'descending').subarray(0, 100);
    const probabilities = softmax(Float32Array.from(best, (i) => scores[i]!));
    const limit = entropy(probabilities) * this.top_h;
    const kept = new Float32Array(scores.length).fill(-Infinity);
    let sum = 0;
    for (let k = 0; k < best.length; k++) {
      sum -= probabilities[k]! * Math.log(probabilities[k]!);
      if (k > 0 && !(sum <= limit)) break;
      kept[best[k]!] = scores[best[k]!]!;
    }
    scores.set(kept);
  }
}

/** Keeps the ids whose surprise is nearest to the entropy, up to a mass (locally typical sampling, arXiv:2202.00666). */
export class TypicalLogitsWarper implements LogitsProcessor {
  constructor(
    private readonly mass: number,
    private readonly min_tokens_to_keep = 1,
  ) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    const probabilities = softmax(scores);
    const h = entropy(probabilities);
    // How far from typical; ids that are removed already come last.
    const distance = Float32Array.from(probabilities, (p) => (p > 0 ? Math.abs(-Math.log(p) - h) : Infinity));
    const nearestFirst = order(distance, 'ascending');
    let sum = 0;
    let last = 0;
    while (last < nearestFirst.length - 1 && (sum += probabilities[nearestFirst[last]!]!) < this.mass) last++;
    const farthest = distance[nearestFirst[last]!]!;
    for (let k = this.min_tokens_to_keep; k < nearestFirst.length; k++) {
      if (distance[nearestFirst[k]!]! > farthest) scores[nearestFirst[k]!] = -Infinity;
    }
  }
}

/** Keeps ids with a probability of epsilon or more (arXiv:2210.15191). */
export class EpsilonLogitsWarper implements LogitsProcessor {
  constructor(
    private readonly epsilon: number,
    private readonly min_tokens_to_keep = 1,
  ) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    cutBelow(scores, softmax(scores), this.epsilon, this.min_tokens_to_keep);
  }
}

/** Keeps ids with a probability of eta = min(epsilon, sqrt(epsilon) exp(-entropy)) or more (arXiv:2210.15191). */
export class EtaLogitsWarper implements LogitsProcessor {
  constructor(
    private readonly epsilon: number,
    private readonly min_tokens_to_keep = 1,
  ) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    const probabilities = softmax(scores);
    const eta = Math.min(this.epsilon, Math.sqrt(this.epsilon) * Math.exp(-entropy(probabilities)));
    cutBelow(scores, probabilities, eta, this.min_tokens_to_keep);
  }
}

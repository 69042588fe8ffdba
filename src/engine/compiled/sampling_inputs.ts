/** What decoding calls are given besides tokens, laid out as the program takes it. */
import type { EngineSampling } from '../../generation/engine.js';
import { variables } from './names.js';
import type { RunningProgram } from './programs.js';

/** The variables `bias` and `eos` of a program, [vocab_size], which are uploaded where they change. */
export class VocabularyMasks {
  private bias: string | null = null;
  private eos: string | null = null;

  /** Another program knows neither. */
  forget(): void {
    this.bias = this.eos = null;
  }

  set(program: Pick<RunningProgram, 'assign'>, { suppress, eos }: EngineSampling, vocab_size: number): void {
    const [bias, ends] = [suppress.join(), eos.join()];
    const upload = (name: string, ids: readonly number[], value: number): void => {
      const values = new Float32Array(vocab_size);
      for (const id of ids) values[id] = value;
      program.assign(name, values);
    };
    if (bias !== this.bias) upload(variables.bias, suppress, -Infinity);
    this.bias = bias;
    if (ends !== this.eos) upload(variables.eos, eos, 1);
    this.eos = ends;
  }
}

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

/** Which ids a program may choose, and which end a row. */
import type { EngineSampling } from '../generation/engine.js';
import type { Program } from '../jit/index.js';

/** The variables `bias` and `eos` of a program, [vocab_size], which are uploaded where they change. */
export class VocabularyMasks {
  private bias: string | null = null;
  private eos: string | null = null;

  /** Another program knows neither. */
  forget(): void {
    this.bias = this.eos = null;
  }

  set(program: Program, { suppress, eos }: EngineSampling, vocab_size: number): void {
    const [bias, ends] = [suppress.join(), eos.join()];
    const upload = (name: string, ids: readonly number[], value: number): void => {
      const values = new Float32Array(vocab_size);
      for (const id of ids) values[id] = value;
      program.assign(name, values);
    };
    if (bias !== this.bias) upload('bias', suppress, -Infinity);
    this.bias = bias;
    if (ends !== this.eos) upload('eos', eos, 1);
    this.eos = ends;
  }
}

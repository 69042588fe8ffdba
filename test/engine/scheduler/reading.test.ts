/** Which prompts a scheduler reads together, where its rows can: over a model in plain loops. */
import { expect } from 'chai';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import { StateRows } from '../../../src/engine/scheduler/state_rows.js';
import type { SchedulerOptions } from '../../../src/engine/scheduler/types.js';
import { GenerationConfig } from '../../../src/generation/config.js';
import type { DecodingRows, RowsOptions } from '../../../src/generation/decoding_rows.js';
import type { EngineState } from '../../../src/generation/engine.js';
import { hashedLogits, ToyEngine } from '../../support/toy_engine.js';

const V = 23;

/** Rows that read prompts together, and say which. */
class ReadingRows extends StateRows {
  override readonly readers: number;

  constructor(
    private readonly toy: ReadingToy,
    rows: number,
    { block = 1, readers = 1 }: RowsOptions,
  ) {
    super(toy, rows, block);
    this.readers = readers;
  }

  async read(states: readonly EngineState[], rows: readonly Int32Array[]): Promise<void> {
    this.toy.read.push(rows.map(({ length }) => length));
    for (const [i, state] of states.entries()) await this.toy.prefill(state, [rows[i]!]);
  }

  override decode(...args: Parameters<StateRows['decode']>): ReturnType<StateRows['decode']> {
    this.toy.read.push(args[0].length);
    return super.decode(...args);
  }
}

class ReadingToy extends ToyEngine {
  /** Ids of the prompts of each call that read some, and how many rows each block was of, in their order. */
  readonly read: (number | number[])[] = [];

  constructor() {
    super(V, hashedLogits(V));
  }

  async openRows(count: number, options: RowsOptions = {}): Promise<DecodingRows> {
    return new ReadingRows(this, count, options);
  }
}

describe('prompts of a scheduler that are read together', () => {
  /** Submits prompts of such lengths at once, and waits for their answers. */
  async function run(lengths: readonly number[], options: SchedulerOptions = {}): Promise<ReadingToy> {
    const engine = new ReadingToy();
    const generation_config = new GenerationConfig({ max_new_tokens: 3, eos_token_id: null, pad_token_id: 0 });
    const scheduler = new Scheduler(engine, { rows: 16, block: 8, readers: 4, generation_config, ...options });
    const prompts = lengths.map((length, k) => Array.from({ length }, (_, i) => 3 + ((i * (k + 2)) % 19)));
    const got = await Promise.all(prompts.map((input_ids) => scheduler.submit({ input_ids }).result));
    for (const [i, input_ids] of prompts.entries()) {
      const own: number[] = [];
      for (let n = 0; n < 3; n++) {
        const logits = hashedLogits(V)([...input_ids, ...own]);
        own.push(logits.indexOf(Math.max(...logits)));
      }
      expect(got[i]!.choices[0]!.ids, `prompt ${i}`).to.deep.equal(own);
    }
    await scheduler.close();
    expect(engine.live).to.equal(0);
    return engine;
  }

  it('are of like length, as many as there are readers', async () => {
    const { read } = await run([20, 300, 25, 60, 31, 290, 40, 200]);
    // a piece of 64 ids or fewer is a piece of 64; 300 and 290 and 200 are alike
    expect(read.slice(0, 2)).to.deep.equal([
      [20, 25, 60, 31],
      [300, 290, 200],
    ]);
    // the last one alone, by the engine; then all rows
    expect(read[2]).to.equal(8);
  });

  it('are read in pieces that fit between two blocks, side by side', async () => {
    const { read } = await run([400, 400, 400, 400], { prompt_tokens: 100 });
    // nothing runs yet: four times as many ids as otherwise
    expect(read[0]).to.deep.equal([100, 100, 100, 100]);
    expect(read.filter((one) => Array.isArray(one))).to.have.length(4);
  });

  it('come before the first block as long as no row runs, within a bound', async () => {
    const { read } = await run(new Array<number>(16).fill(50), { prompt_tokens: 100 });
    expect(read.findIndex((one) => typeof one === 'number')).to.equal(4);
    const few = await run(new Array<number>(16).fill(50), { prompt_tokens: 50 });
    expect(few.read.findIndex((one) => typeof one === 'number')).to.equal(2);
  });

  it('are read alone where few wait, or where one is long', async () => {
    const { read, calls } = await run([1500, 1500], { prompt_tokens: 4000 });
    expect(read).to.not.deep.include([1500, 1500]);
    expect(calls.prefill).to.equal(2);
    const { read: one } = await run([20], { readers: 4 });
    expect(one[0]).to.equal(1);
  });
});

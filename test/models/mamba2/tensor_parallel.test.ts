/** What each of several devices has of a Mamba-2. */
import { expect } from 'chai';
import { type ArrayPart, partShape } from '../../../src/base/array_parts.js';
import { ArgumentError } from '../../../src/base/errors.js';
import { Mamba2Config, type Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { Mamba2Network } from '../../../src/models/mamba2/network.js';
import { thrown } from '../../support/errors.js';
import { TINY } from '../../support/tiny_model.js';

const networkOf = (changes: Partial<Mamba2ConfigFields>): Mamba2Network =>
  new Mamba2Network(Mamba2Config.from_dict({ ...TINY, ...changes }));

describe('a plan of a Mamba-2', () => {
  for (const [changes, count] of [
    [{}, 2],
    [{ n_groups: 1 }, 2],
    [{ n_groups: 1, tie_word_embeddings: true }, 4],
    [{ n_groups: 4, norm_groups: 'full', conv_kernel: 1 }, 4],
    [{ hidden_size: 9, expand: 4 / 3, num_heads: 6, head_dim: 2, n_groups: 3 }, 3],
  ] as [Partial<Mamba2ConfigFields>, number][])
    it(`gives every device the shapes of its network, and all that there is to some: ${JSON.stringify(changes)} on ${count}`, () => {
      const network = networkOf(changes);
      const plan = network.tensorParallel(count);
      const own = new Map(plan.network.weightSpecs().map(({ name, shape }) => [name, shape]));
      expect([...own.keys()]).to.deep.equal(network.weightSpecs().map(({ name }) => name));
      const devices = Array.from({ length: count }, (_, k) => k);
      const covers = (parts: readonly ArrayPart[], size: number): void => {
        const [{ axis }] = parts as [ArrayPart];
        const had = new Array<number>(size).fill(0);
        for (const part of parts) {
          expect(part.axis).to.equal(axis);
          for (const [from, to] of part.ranges) for (let i = from; i < to; i++) had[i]!++;
        }
        // the states of the one group are on all devices; everything else is on one
        expect(new Set(had)).to.satisfy((times: Set<number>) =>
          [...times].every((n) => n === 1 || (n === count && network.config.n_groups === 1)),
        );
      };
      for (const { name, shape, role } of network.weightSpecs()) {
        const cut = plan.weight(name);
        const vocabulary = role === 'embedding' || role === 'head';
        if (!cut) {
          expect(own.get(name), name).to.deep.equal(shape);
          continue;
        }
        expect(cut.vocabulary, name).to.equal(vocabulary ? network.config.vocab_size : undefined);
        const parts = devices.map((k) => cut.part(k));
        covers(parts, shape[parts[0]!.axis]!);
        // that of one device has the whole vocabulary
        if (!vocabulary) for (const part of parts) expect(partShape(shape, part), name).to.deep.equal(own.get(name));
      }
      const states = new Map(plan.network.stateSpecs().map(({ name, shape }) => [name, shape]));
      for (const { name, shape } of network.stateSpecs()) {
        const parts = devices.map((k) => plan.state(name, k));
        covers(parts, shape[parts[0]!.axis]!);
        for (const part of parts) expect(partShape(shape, part), name).to.deep.equal(states.get(name));
      }
      const normed = plan.weight('backbone.layers.0.mixer.out_proj.weight')!.sums!.normed;
      const over = network.config.n_groups === 1 || network.config.norm_groups === 'full';
      expect(normed).to.equal(over ? network.config.inner_size : null);
    });

  it('names the numbers of devices that there is one for', () => {
    for (const [changes, count, expected, text] of [
      [{}, 4, [2], /4 heads in 2 groups.*must divide heads and groups.*tp_size may be 2; device_map/],
      [{ n_groups: 1 }, 3, [2, 4], /in 1 group:.*must divide the heads.*may be 2, 4/],
      [{ num_heads: 3, head_dim: 4, n_groups: 3 }, 2, [3], /may be 3/],
      [{ num_heads: 1, head_dim: 12, n_groups: 1 }, 2, [], /Put whole layers on devices: device_map: 'auto'/],
    ] as [Partial<Mamba2ConfigFields>, number, number[], RegExp][]) {
      const error = thrown(() => networkOf(changes).tensorParallel(count)) as ArgumentError;
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(text);
      expect(error.data).to.include({ option: 'tp_plan', got: count });
      expect(error.data['expected']).to.deep.equal(expected);
    }
  });
});

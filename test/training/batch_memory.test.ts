import { expect } from 'chai';
import { DeviceError } from '../../src/base/errors.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { checkBatchMemory } from '../../src/training/batch_memory.js';

const network = {
  config: new Mamba2Config({ num_hidden_layers: 24, hidden_size: 768, num_heads: 24, head_dim: 64, state_size: 128 }),
};
const CARD = 80 * 2 ** 30;

describe('memory of a training batch on a GPU', () => {
  it('is refused by us where the streams between layers alone are more than the card has', () => {
    // 24 layers and two within one, float32: [b, t, 768]
    const position = 26 * 4 * 768;
    const length = 4096;
    const most = Math.floor(CARD / (position * length));
    checkBatchMemory(network, { batch: most, length }, true, CARD);
    const beyond = { batch: most + 1, length };
    expect(() => checkBatchMemory(network, beyond, true, CARD))
      .to.throw(
        DeviceError,
        /^Training: a batch of 263 × 4096 ids would take at least 80\.\d GiB of memory, and the GPU has 80\.0 GiB\. Use a smaller per_device_train_batch_size/,
      )
      .with.property('data')
      .that.deep.equals({ needed: (most + 1) * length * position, total: CARD });
    // evaluation keeps none of them
    checkBatchMemory(network, beyond, false, CARD);
    expect(() => checkBatchMemory(network, { batch: 16 * most, length }, false, CARD)).to.throw(DeviceError);
  });

  it('is left to TensorFlow where nothing tells what the card has', () => {
    checkBatchMemory(network, { batch: 2 ** 16, length: 2 ** 16 }, true, Infinity);
  });
});

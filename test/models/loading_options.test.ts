/** Options of from_pretrained(): transformers' names, and what is refused. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DeviceError } from '../../src/base/errors.js';
import { AutoConfig, AutoModelForCausalLM } from '../../src/models/auto/index.js';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { rejection, thrown } from '../support/errors.js';

const DIR = 'models/tiny-books-mamba2';
type Options = Parameters<typeof Mamba2ForCausalLM.from_pretrained>[1];

describe('from_pretrained()', () => {
  it('takes the names of transformers', async () => {
    for (const options of [
      { torch_dtype: 'float32', device: 'cpu' },
      { dtype: 'torch.bfloat16', torch_dtype: 'bf16', device: -1 },
      { device_map: 'auto', revision: 'main', cache_dir: '/nowhere', token: 'hf_x', local_files_only: true },
      { device_map: { '': 'cpu' } },
      { tp_plan: 'auto', device: 'cpu' },
    ] satisfies Options[]) {
      const model = await Mamba2ForCausalLM.from_pretrained('tiny-books-mamba2', options);
      expect(tf.getBackend()).to.equal('tensorflow');
      expect(model.hf_device_map).to.deep.equal({ '': 'cpu' });
      model.dispose();
    }
  });

  it('refuses what it does not know or cannot honour, before anything is read', async () => {
    const refused: [object, RegExp][] = [
      [{ dtpye: 'float32' }, /no option dtpye\. Did you mean dtype\?/],
      [{ torchDtype: 'float32' }, /Did you mean torch_dtype\?/],
      [{ torch_dtype: 'float16' }, /torch_dtype is "float16"; expected .*bfloat16/],
      [{ dtype: 'float32', torch_dtype: 'bfloat16' }, /one option by two names/],
      [{ device: 'mps' }, /device is "mps"; expected one of auto/],
      [
        { device_map: { 'backbone.layers.0': 0, lm_head: 'tpu' } },
        /device_map: got for the module "lm_head" the device "tpu"/,
      ],
      [{ device_map: 'many' }, /device_map is "many"; expected 'auto', 'balanced'/],
      [{ max_memory: { 0: '5GB' } }, /max_memory has no effect without a device_map/],
      [{ device_map: 'auto', max_memory: 5 }, /max_memory is 5; expected a record of devices and bytes/],
      [{ tp_plan: 'colwise' }, /tp_plan is "colwise"; expected 'auto', the one plan/],
      [{ tp_plan: { 'layers.*': 'colwise' } }, /tp_plan is .*; expected 'auto'/],
      [{ tp_plan: 'auto', tp_size: 0 }, /tp_size is 0; expected an integer of 1 or more/],
      [{ tp_size: 2 }, /no effect without a plan/],
      [{ tp_plan: 'auto', device_map: 'auto' }, /device_map is given too/],
      [{ offload_folder: 'x' }, /offload_folder.*not offloaded/],
      [{ device_map: 'auto', device: 0 }, /pass either/],
      [{ load_in_4bit: true }, /Int4WeightOnlyConfig/],
      [{ attn_implementation: 'sdpa' }, /no attention/],
      [{ use_auth_token: 'x' }, /called token here/],
      [{ engine: 'eager', dtype: 'bfloat16' }, /no effect/],
      [{ engine: 'eager', state_dtype: 'bfloat16' }, /no effect/],
      [{ engine: 'fast' }, /expected 'auto', 'compiled' or 'eager'/],
      [{ local_files_only: 'yes' }, /local_files_only is "yes"; expected true or false/],
      [{ signal: {} }, /expected an AbortSignal/],
    ];
    for (const load of [AutoModelForCausalLM, Mamba2ForCausalLM])
      for (const [options, message] of refused) {
        const error = await rejection(load.from_pretrained('/no/such/folder', options));
        expect(error, JSON.stringify(options)).to.be.instanceOf(ArgumentError);
        expect(error.message).to.match(message);
      }
    const error = await rejection(AutoConfig.from_pretrained('/no/such/folder', { device: 0 } as object));
    expect(error.message).to.include('AutoConfig.from_pretrained() has no option device');
  });

  it('passes what is off anyhow', async () => {
    const model = await Mamba2ForCausalLM.from_pretrained(DIR, {
      load_in_4bit: false,
      low_cpu_mem_usage: true,
    } as object);
    model.dispose();
  });

  it('lets bfloat16 be asked for where it is computed, and refuses it where it is not', async () => {
    const before = tf.getBackend();
    try {
      const error = await rejection(Mamba2ForCausalLM.from_pretrained(DIR, { device: 'js', dtype: 'bfloat16' }));
      expect(error).to.be.instanceOf(DeviceError);
      expect(error.message).to.match(/dtype.*bfloat16.*float32/);
    } finally {
      await tf.setBackend(before);
    }
  });

  it('checks the options of a model that is made', () => {
    const config = new Mamba2Config({ vocab_size: 8, hidden_size: 8, num_heads: 2, head_dim: 8, n_groups: 1 });
    const error = thrown(() => new Mamba2ForCausalLM(config, null, { state_type: 'bfloat16' } as object));
    expect(error.message).to.include('Did you mean state_dtype?');
  });
});

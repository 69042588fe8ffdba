/** Options of the functions that read and write files: a misspelt one is refused by name, before anything else is looked at. */
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { saveCheckpoint, saveTfjs, writeSafetensors } from '../../src/checkpoints/index.js';
import {
  convertCheckpoint,
  inspectCheckpoint,
  openCheckpoint,
  resolveModel,
  validateCheckpoint,
  verifyConversion,
} from '../../src/models/checkpoints.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { exportLayersModel } from '../../src/models/mamba2/tfjs_export.js';
import { get_peft_model, load_peft_model } from '../../src/peft/index.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

const nothing = undefined as never;
const odd = (options: object): never => options as never;

describe('options of files', () => {
  before(() => useBackend('tensorflow'));

  const calls: Record<string, [call: (options: never) => unknown, misspelt: object, wrong: object]> = {
    saveCheckpoint: [
      (o) => saveCheckpoint(nothing, nothing, nothing, o),
      { max_shard_sise: '1GB' },
      { legacy_json: 1 },
    ],
    saveTfjs: [
      (o) => saveTfjs(nothing, nothing, nothing, nothing, o),
      { generated_by: 'x' },
      { extra_files: { a: 1 } },
    ],
    writeSafetensors: [(o) => writeSafetensors(nothing, nothing, o), { meta_data: {} }, { metadata: { a: 1 } }],
    convertCheckpoint: [(o) => convertCheckpoint(nothing, nothing, o), { dytpe: 'BF16' }, { dtype: 'bf16' }],
    verifyConversion: [(o) => verifyConversion(nothing, nothing, o), { onTensor: () => 0 }, { on_tensor: 1 }],
    validateCheckpoint: [(o) => validateCheckpoint(nothing, o), { allowed: () => true }, { allow: 'x' }],
    inspectCheckpoint: [(o) => inspectCheckpoint(nothing, o), { quantised: () => ({}) }, { quantized: true }],
    exportLayersModel: [(o) => exportLayersModel(nothing, nothing, o), { dtyp: 'F16' }, { max_shard_size: -1 }],
    resolveModel: [
      (o) => resolveModel('models/tiny-books-mamba2', o),
      { revison: 'main' },
      { local_files_only: 'yes' },
    ],
    get_peft_model: [(o) => get_peft_model(nothing, {}, o), { adaptor_name: 'x' }, { seed: 'x' }],
    load_peft_model: [(o) => load_peft_model(nothing, nothing, o), { adapter: 'x' }, { adapter_name: 3 }],
  };
  for (const [name, [call, misspelt, wrong]] of Object.entries(calls))
    it(`${name} refuses what it does not know, and values of another kind`, async () => {
      const attempt = (options: object): Promise<Error> =>
        rejection(Promise.resolve().then(async () => await call(odd(options))));
      for (const options of [misspelt, wrong]) {
        const error = await attempt(options);
        expect(error).to.be.instanceOf(ArgumentError);
        const key = Object.keys(options)[0]!;
        expect(error.message).to.contain(key);
        expect(error.message).to.match(
          options === misspelt ? /no option .*(Did you mean|is called|It takes)/ : /expected/,
        );
      }
    });

  it('are those of a model and of its adapters, too', async () => {
    const { model } = tinyModel();
    const refused = async (call: () => unknown, message: RegExp): Promise<void> => {
      const error = await rejection(Promise.resolve().then(async () => await call()));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(message);
    };
    await refused(
      () => model.save_pretrained(nothing, odd({ max_shard: '1GB' })),
      /max_shard.*Did you mean max_shard_size/,
    );
    await refused(() => model.save_pretrained(nothing, odd({ torch_dtype: 'float16' })), /called dtype here/);
    await refused(() => model.save_pretrained(nothing, odd({ dtype: 'int8' })), /dtype is "int8"; expected 'float32'/);
    await refused(() => model.save_pretrained(nothing, odd({ safe_serialization: false })), /safetensors/);
    const peft = get_peft_model(model, { r: 2 });
    await refused(() => peft.merge_adapter(odd({ safe: true })), /safe_merge/);
    await refused(() => peft.add_adapter('x', nothing, odd({ sed: 1 })), /Did you mean seed/);
    const state = await model.prefill([[1, 2]]);
    await refused(() => state.save(nothing, odd({ a: 1 })), /extra/);
    state.dispose();
    peft.dispose();
    model.dispose();
    const source = await openCheckpoint('models/tiny-books-mamba2');
    await refused(() => Mamba2ForCausalLM.from_pretrained('x', odd({ devise: 'cpu' })), /Did you mean device/);
    await source.close();
  });
});

import { expect } from 'chai';
import { computeDtypeKind, computeDtypeOf } from '../../src/base/compute_dtypes.js';
import { deviceMapKind, deviceOfMap, layerDevice, parseDevice } from '../../src/base/devices.js';
import { ArgumentError } from '../../src/base/errors.js';
import { thrown } from '../support/errors.js';

describe('names of devices', () => {
  it('are ours, and those of PyTorch and transformers', () => {
    const cases: [unknown, string, number | null][] = [
      ['auto', 'auto', null],
      ['wasm', 'wasm', null],
      ['cuda', 'gpu', null],
      ['gpu', 'gpu', null],
      ['cuda:1', 'gpu', 1],
      ['gpu:12', 'gpu', 12],
      [0, 'gpu', 0],
      [3, 'gpu', 3],
      ['0', 'gpu', 0],
      [-1, 'cpu', null],
      ['cpu:0', 'cpu', null],
    ];
    for (const [name, device, card] of cases) expect(parseDevice(name)).to.deep.equal({ device, card });
  });

  it('are refused where they are none', () => {
    for (const wrong of ['cuda:', 'cuda:-1', 'cuda:x', 'mps', 'webnn', 'GPU', '', 1.5, -2, NaN, null, {}, [0], true]) {
      const error = thrown(() => parseDevice(wrong));
      expect(error, JSON.stringify(wrong)).to.be.instanceOf(ArgumentError);
      expect(error.message).to.include('expected one of auto, cpu, gpu');
    }
  });

  it('stand in a device_map for the whole model', () => {
    for (const map of ['auto', 'balanced', 'balanced_low_0', 'sequential']) expect(deviceOfMap(map)).to.equal('auto');
    expect(deviceOfMap('cuda:0')).to.equal('cuda:0');
    expect(deviceOfMap(0)).to.equal(0);
    expect(deviceOfMap({ '': 'cpu' })).to.equal('cpu');
    for (const several of [{ 'backbone.layers.0': 0 }, { '': 0, lm_head: 1 }, {}, { '': 'x' }]) {
      expect(deviceOfMap(several)).to.equal(null);
      expect(deviceMapKind.ok(several)).to.equal(true); // judged where the model is known
    }
    for (const wrong of ['none', null, [], 1.5]) expect(deviceMapKind.ok(wrong)).to.equal(false);
  });

  it('are devices that layers may lie on', () => {
    for (const name of [1, '1', 'cuda:1', 'gpu:1']) expect(layerDevice(name)).to.deep.equal({ type: 'gpu', index: 1 });
    for (const name of ['cuda', 'gpu', 0]) expect(layerDevice(name)).to.deep.equal({ type: 'gpu', index: 0 });
    for (const name of ['cpu', 'cpu:0', -1]) expect(layerDevice(name)).to.deep.equal({ type: 'cpu', index: 0 });
    expect(layerDevice('cpu:3')).to.deep.equal({ type: 'cpu', index: 3 });
    for (const none of ['disk', 'auto', 'wasm', 'js', 'webgpu', 'cpu:', 'cpu:-1', '', null, {}])
      expect(layerDevice(none)).to.equal(null);
  });
});

describe('names of element types', () => {
  it('are one type each', () => {
    for (const name of ['bfloat16', 'bf16', 'BF16', 'torch.bfloat16'])
      expect(computeDtypeOf(name)).to.equal('bfloat16');
    for (const name of ['float32', 'fp32', 'F32', 'torch.float32']) expect(computeDtypeOf(name)).to.equal('float32');
    for (const wrong of ['float16', 'fp16', 'torch.float16', 'float64', 'int8', 'q4', '', 16, null])
      expect(computeDtypeKind.ok(wrong), String(wrong)).to.equal(false);
  });
});

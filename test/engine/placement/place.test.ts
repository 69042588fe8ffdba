/** device_map and max_memory: what they mean for a model on a machine, and what is refused. */
import { expect } from 'chai';
import type { DeviceMap } from '../../../src/base/devices.js';
import { ArgumentError, DeviceError, type Mamba2Error } from '../../../src/base/errors.js';
import { modulesOf, storedBytes } from '../../../src/engine/placement/modules.js';
import { type Machine, type Placement, placeModel } from '../../../src/engine/placement/place.js';
import { type MapOptions, mapRequest, selectedFor } from '../../../src/engine/placement/request.js';
import { float32Storage } from '../../../src/layers/storage.js';
import { Mamba2Config } from '../../../src/models/mamba2/config.js';
import { Mamba2Network } from '../../../src/models/mamba2/network.js';
import { roomsOfCards } from '../../../src/runtime/cards.js';
import { thrown } from '../../support/errors.js';
import { TINY } from '../../support/tiny_model.js';

const networkOf = (tied: boolean): Mamba2Network =>
  new Mamba2Network(Mamba2Config.from_dict({ ...TINY, num_hidden_layers: 4, tie_word_embeddings: tied }));
const plain = networkOf(false);

/** Matrices and all else in float32: a block has 6·37·4 + 37·4 … bytes, which the tests ask the tree for. */
const treeOf = (network: Mamba2Network): ReturnType<typeof modulesOf> => {
  const shapes = new Map(network.weightSpecs().map(({ name, shape }) => [name, shape]));
  return modulesOf(network, (name) => storedBytes(float32Storage(shapes.get(name)!)));
};

const cpu: Machine = { tensorflow: true, gpus: [], device: 'cpu' };
const gpus = (...free: number[]): Machine => ({ tensorflow: true, gpus: free, device: 0 });

const place = (options: MapOptions, machine: Machine, network = plain): Placement =>
  placeModel(network, treeOf(network), mapRequest(options)!, machine);

describe('device_map', () => {
  it('is what it was with one device', () => {
    for (const device_map of ['auto', 'balanced', 'balanced_low_0', 'sequential'] as const) {
      expect(place({ device_map }, cpu)).to.deep.equal({ map: { '': 'cpu' }, division: null });
      expect(place({ device_map }, gpus(1e9))).to.deep.equal({ map: { '': 0 }, division: null });
      expect(place({ device_map }, { tensorflow: false, gpus: [], device: 'wasm' }).map).to.deep.equal({ '': 'wasm' });
    }
    expect(place({ device_map: { '': 'cpu' } }, cpu)).to.deep.equal({ map: { '': 'cpu' }, division: null });
    expect(place({ device_map: { backbone: 'cpu', lm_head: 'cpu:0' } }, cpu)).to.deep.equal({
      map: { backbone: 'cpu', lm_head: 'cpu' },
      division: null,
    });
    expect(place({ device_map: 'auto', max_memory: { cpu: '1MB' } }, cpu).map).to.deep.equal({ '': 'cpu' });
  });

  it('shares a model out over the GPUs there are', () => {
    // float32 [out, in]: in_proj [2·12 + 2·2·4 + 4, 6], out_proj [6, 12] with biases, the convolution of 12 + 2·2·4 channels by 4 with one
    const block = 4 * (44 * 6 + 44 + 6 * 12 + 6 + 28 * 4 + 28 + 3 * 4 + 12 + 6);
    const tree = treeOf(plain);
    const total = 2 * 4 * 11 * 6 + 4 * block + 4 * 6;
    expect([...tree.tensors.values()].reduce((sum, bytes) => sum + bytes, 0)).to.equal(total);
    // a half and a quarter more than a block for the first: embedding and one block with room kept for another, or two
    const each = Math.floor(total / 2) + Math.trunc(1.25 * block);
    const fits = Math.floor((each - block - 4 * 11 * 6) / block);
    const layers = Object.fromEntries([0, 1, 2, 3].map((i) => [`backbone.layers.${i}`, i < fits ? 0 : 1]));
    const { map, division } = place({ device_map: 'auto' }, gpus(1e9, 1e9));
    expect(map).to.deep.equal({ 'backbone.embeddings': 0, ...layers, 'backbone.norm_f': 1, lm_head: 1 });
    expect(division).to.deep.equal({
      devices: [0, 1],
      embedding: 0,
      runs: [{ device: 0, from: 0, to: fits }, { device: 1, from: fits, to: 4 }], // prettier-ignore
      norm: 1,
      head: 1,
    });
    // sequential: all on the first, while there is room
    expect(place({ device_map: 'sequential' }, gpus(1e9, 1e9))).to.deep.equal({ map: { '': 0 }, division: null });
    // max_memory of the second alone
    expect(place({ device_map: 'auto', max_memory: { 1: '1GB' } }, gpus(1e9, 1e9)).map).to.deep.equal({ '': 1 });
    // a tied head goes with the embedding
    const tied = place({ device_map: 'sequential', max_memory: { 0: 264 + 2 * block, 1: '1GB' } }, gpus(1, 1), networkOf(true)); // prettier-ignore
    expect(tied.map).to.deep.equal({
      'backbone.embeddings': 0,
      'backbone.layers.0': 0,
      'backbone.layers.1': 1,
      'backbone.layers.2': 1,
      'backbone.layers.3': 1,
      'backbone.norm_f': 1,
      lm_head: 0,
    });
    expect(tied.division).to.include({ embedding: 0, norm: 1, head: 0 });
  });

  it('takes logical devices of a processor, where max_memory or a record names them', () => {
    const { map, division } = place({ device_map: 'auto', max_memory: { 'cpu:0': '1MB', 'cpu:2': '1MB' } }, cpu);
    expect(new Set(Object.values(map))).to.deep.equal(new Set(['cpu:0', 'cpu:2']));
    expect(division!.devices).to.deep.equal([0, 2]);
    expect(place({ device_map: { '': 'cpu:1' } }, cpu).division!.devices).to.deep.equal([1]);
  });

  it('takes a record by module, the nearest name first', () => {
    const record = { '': 1, 'backbone.embeddings': '0', 'backbone.layers': 'cuda:0', 'backbone.layers.2': 'gpu:2' };
    const { map, division } = place({ device_map: record as DeviceMap }, gpus(1, 1, 1));
    expect(map).to.deep.equal({ '': 1, 'backbone.embeddings': 0, 'backbone.layers': 0, 'backbone.layers.2': 2 });
    expect(division).to.deep.equal({
      devices: [0, 1, 2],
      embedding: 0,
      runs: [{ device: 0, from: 0, to: 2 }, { device: 2, from: 2, to: 3 }, { device: 0, from: 3, to: 4 }], // prettier-ignore
      norm: 1,
      head: 1,
    });
    const tied = place({ device_map: { 'backbone.embeddings': 1, 'backbone.layers': 0, 'backbone.norm_f': 0 } }, gpus(1, 1), networkOf(true)); // prettier-ignore
    expect(tied.division).to.include({ embedding: 1, norm: 0, head: 1 });
  });

  it('selects the device that it needs', () => {
    const selected = (options: MapOptions): unknown => selectedFor(mapRequest(options)!);
    expect(selected({ device_map: 'auto' })).to.equal('auto');
    expect(selected({ device_map: 'auto', max_memory: { 0: 5 } })).to.equal('gpu');
    expect(selected({ device_map: 'auto', max_memory: { 0: 5, cpu: 5 } })).to.equal('auto');
    expect(selected({ device_map: 'auto', max_memory: { cpu: 5 } })).to.equal('cpu');
    expect(selected({ device_map: { '': 'cuda:1' } })).to.equal('cuda:1');
    expect(selected({ device_map: { backbone: 1, lm_head: '1' as 'cuda:1' } })).to.equal('cuda:1');
    expect(selected({ device_map: { backbone: 0, lm_head: 1 } })).to.equal('gpu');
    expect(selected({ device_map: { backbone: 'cpu', lm_head: 'cpu:1' } })).to.equal('cpu');
  });

  const refused: [MapOptions, Machine, RegExp, object?][] = [
    [{ device_map: {} }, cpu, /names no module.*'auto'/],
    [{ device_map: { '': 'disk' as 'cpu' , lm_head: 0 } }, cpu, /"disk": layers are not offloaded/, { got: 'disk' }],
    [{ device_map: { lm_head: 'mps' as 'cpu' } }, cpu, /for the module "lm_head" the device "mps": expected the number of a GPU/],
    [{ device_map: { '': 'wasm', lm_head: 0 } }, cpu, /"wasm": expected/],
    [{ device_map: { backbone: 0, lm_head: 'cpu' } }, gpus(1, 1), /"backbone" lies on 0 and "lm_head" on "cpu".*not offloaded/],
    [{ device_map: { '': 0, 'backbone.layer.0': 1 } }, gpus(1, 1), /no module "backbone.layer.0". Did you mean "backbone.layers.0"\?/],
    [{ device_map: { transformer: 0 } }, gpus(1, 1), /no module "transformer".* Its modules are "", "backbone", .*"lm_head" and the layers from "backbone.layers.0"/],
    [{ device_map: { '': 0, 'backbone.layers.9': 1 } }, gpus(1, 1), /no module "backbone.layers.9"/],
    [{ device_map: { '': 0, 'backbone.layers.1.mixer': 1 } }, gpus(1, 1), /"backbone.layers.1.mixer" is a part of "backbone.layers.1"/],
    [{ device_map: { 'backbone.layers': 0 } }, gpus(1, 1), /gives no device to "backbone.embeddings", "backbone.norm_f", "lm_head". Add them, or ''/, { missing: ['backbone.embeddings', 'backbone.norm_f', 'lm_head'] }],
    [{ device_map: { '': 0, lm_head: 3 } }, gpus(1, 1), /there is no GPU 3: there are 2, 0 to 1/, { got: 3, expected: [0, 1] }],
    [{ device_map: { '': 0, lm_head: 1 } }, gpus(1), /there is no GPU 1: there is one, 0/],
    [{ device_map: { '': 0, lm_head: 1 } }, cpu, /several devices, and the backend in use has one \('cpu'\)/],
    [{ device_map: { '': 'cpu:0', lm_head: 'cpu:1' } }, { tensorflow: false, gpus: [], device: 'wasm' }, /has one \('wasm'\)/],
    [{ max_memory: { 0: 5 } }, cpu, /max_memory has no effect without a device_map/],
    [{ device_map: 0, max_memory: { 0: 5 } }, cpu, /no effect with the device_map 0/],
    [{ device_map: 'auto', max_memory: { disk: '1GB' } }, cpu, /"disk": layers are not offloaded/],
    [{ device_map: 'auto', max_memory: { tpu: '1GB' } }, cpu, /got the device "tpu": expected/],
    [{ device_map: 'auto', max_memory: { 0: 'much' } }, cpu, /max_memory\["0"\] is "much"; expected a number of bytes/],
    [{ device_map: 'auto', max_memory: {} }, cpu, /leaves no device any memory/],
    [{ device_map: 'auto', max_memory: { 0: 0 } }, cpu, /leaves no device any memory/],
    [{ device_map: 'auto', max_memory: { 0: 1, 'cuda:0': 2 } }, cpu, /"cuda:0" names a device that is there already/],
    [{ device_map: 'auto', max_memory: { 0: 5 } }, cpu, /names no device that is in use: that is 'cpu'/],
    [{ device_map: 'auto', max_memory: { 2: 5 } }, gpus(1, 1), /there is no GPU 2/],
    [{ device_map: 'auto', max_memory: { 'cpu:0': 5, 'cpu:1': 5 } }, { tensorflow: false, gpus: [], device: 'wasm' }, /has one device/],
  ]; // prettier-ignore
  for (const [options, machine, message, data] of refused)
    it(`refuses ${JSON.stringify(options)} with ${machine.gpus.length} GPUs`, () => {
      const error = thrown(() => place(options, machine)) as Mamba2Error;
      expect(error).to.satisfy((e: unknown) => e instanceof ArgumentError || e instanceof DeviceError);
      expect(error.message).to.match(message);
      expect(error.data['option']).to.be.oneOf(['device_map', 'max_memory', 'max_memory["0"]']);
      if (data) expect(error.data).to.deep.include(data);
    });

  it('says how much is missing', () => {
    const sizes = treeOf(plain);
    const of = (...modules: string[]): number =>
      [...sizes.tensors].reduce((sum, [name, bytes]) => sum + (modules.some((m) => name.startsWith(`${m}.`)) ? bytes : 0), 0); // prettier-ignore
    const room = of('backbone.embeddings', 'backbone.layers.0');
    const error = thrown(() => place({ device_map: 'auto', max_memory: { 0: room, 1: of('backbone.layers.1') } }, gpus(1, 1))); // prettier-ignore
    expect(error).to.be.instanceOf(ArgumentError);
    const missing = of('backbone.layers.2', 'backbone.layers.3', 'backbone.norm_f', 'lm_head');
    expect((error as ArgumentError).data).to.deep.include({
      missing,
      devices: { 0: room, 1: of('backbone.layers.1') },
    });
    expect(error.message).to.match(new RegExp(`${missing} bytes of it have no room \\(backbone.layers.2, .*max_memory has 0: ${room} bytes.*nothing is offloaded to 'cpu' or 'disk'`)); // prettier-ignore
    const free = thrown(() => place({ device_map: 'auto' }, gpus(100, 100)));
    expect(free).to.be.instanceOf(DeviceError);
    expect(free.message).to.match(/free on the GPUs are 0: 100 bytes, 1: 100 bytes. Free some/);
  });

  it('counts the memory of the GPUs that TensorFlow sees', () => {
    const card = (index: number, free: number): { index: number; memory: { total: number; free: number } } => ({
      index,
      memory: { total: 80 * 2 ** 30, free },
    });
    const cards = [card(0, 10 * 2 ** 30), card(1, 20 * 2 ** 30)];
    expect(roomsOfCards(cards, null, 2, 0, false)).to.deep.equal([10 * 2 ** 30, 20 * 2 ** 30]);
    expect(roomsOfCards(cards, ['1'], 2, 4096, false)).to.deep.equal([16 * 2 ** 30]);
    expect(roomsOfCards(cards, ['1', 'GPU-5f'], 2, 0, true)).to.deep.equal([80 * 2 ** 30, Infinity]);
    expect(roomsOfCards([], null, 2, 0, false)).to.deep.equal([Infinity, Infinity]);
  });
});

describe('tp_plan', () => {
  it('takes all GPUs, or so many devices, and is what it was with one', () => {
    for (const machine of [cpu, gpus(1e9), { tensorflow: false, gpus: [], device: 'wasm' }])
      for (const tp_size of [undefined, 1]) expect(place({ tp_plan: 'auto', tp_size }, machine)).to.deep.equal({ map: { '': machine.device }, division: null }); // prettier-ignore
    for (const [options, machine, map] of [
      [{}, gpus(1, 1), 0],
      [{ tp_size: 2 }, gpus(1, 1, 1), 0],
      [{ tp_size: 2 }, cpu, 'cpu:0'],
    ] as const) {
      const placed = place({ tp_plan: 'auto', ...options }, machine);
      expect(placed.map).to.deep.equal({ '': map });
      expect(placed.division).to.equal(null);
      expect(placed.parallel!.devices).to.deep.equal([0, 1]);
      expect(placed.parallel!.plan.network.config.to_dict()).to.include({ num_heads: 2, n_groups: 1 });
    }
    expect(selectedFor(mapRequest({ tp_plan: 'auto', tp_size: 2 })!)).to.equal('auto');
  });

  for (const [options, machine, message, option] of [
    [{ tp_size: 2 }, cpu, /no effect without a plan: pass tp_plan: 'auto'/, 'tp_size'],
    [{ tp_plan: 'auto', device_map: 'auto' }, cpu, /device_map is given too.*Pass either/, 'tp_plan'],
    [{ tp_plan: 'auto', max_memory: { 0: 5 } }, cpu, /max_memory is given too/, 'tp_plan'],
    [{ tp_plan: 'auto', tp_size: 3 }, gpus(1, 1), /tp_size is 3, and there are 2 GPUs.*device: 'cpu'/, 'tp_size'],
    [{ tp_plan: 'auto', tp_size: 2 }, gpus(1), /there is one GPU/, 'tp_size'],
    [{ tp_plan: 'auto' }, gpus(1, 1, 1, 1), /4 devices cannot share.*tp_size may be 2/, 'tp_plan'],
    [
      { tp_plan: 'auto', tp_size: 2 },
      { tensorflow: false, gpus: [], device: 'wasm' },
      /backend in use has one device \('wasm'\)/,
      'tp_size',
    ],
  ] as [MapOptions, Machine, RegExp, string][])
    it(`refuses ${JSON.stringify(options)} on ${machine.gpus.length} GPUs of ${machine.device}`, () => {
      const error = thrown(() => place(options, machine)) as Mamba2Error;
      expect(error).to.be.instanceOf(machine.tensorflow ? ArgumentError : DeviceError);
      expect(error.message).to.match(message);
      expect(error.data).to.include({ option });
    });
});

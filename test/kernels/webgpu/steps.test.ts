/** Prepared steps by themselves: matrices that are bound in parts, several blocks at once, and what is left after dispose(). */
import { expect } from 'chai';
import { DeviceError, DisposedError } from '../../../src/base/errors.js';
import { type GpuBinding, GpuBuffers, type GpuDevice } from '../../../src/kernels/webgpu/gpu.js';
import { boundMatrix, type GpuMatrix } from '../../../src/kernels/webgpu/matrices.js';
import { widths } from '../../../src/kernels/webgpu/recurrence.js';
import { DecodingSteps, type StepSizes } from '../../../src/kernels/webgpu/steps.js';
import { newDevice, onWebGpu } from '../../support/dawn.js';
import { Draw } from '../host/cases.js';
import { matrixOf } from './matrices.js';

const SIZES: StepSizes = {
  ...{ hidden: 16, heads: 2, headDim: 8, groups: 1, stateSize: 8, vocabulary: 700, taps: 4, convolutionBias: false },
  ...{ epsilon: 1e-5, normGroups: 1, limit: [0, Infinity] },
};
const CHOICE = { temperature: 1, topK: 0, removed: [], ends: [], pad: 0 };

/** Ids of each row, as plain arrays. */
const decoded = async (steps: DecodingSteps, count: number): Promise<number[][]> =>
  (await steps.decode(count, CHOICE)).map((ids) => [...ids]);

/** Steps over random weights, the same every time. @param most bytes of a binding */
function stepsOf(device: GpuDevice, most: number, batch = 1): { steps: DecodingSteps; buffers: GpuBuffers } {
  const draw = new Draw(5);
  const buffers = new GpuBuffers(device);
  const { hidden, heads, vocabulary, taps } = SIZES;
  const { inner, channels } = widths(SIZES);
  const numbers = (count: number): GpuBinding => ({ buffer: buffers.filled(draw.numbers(count)) });
  const matrix = (kind: 'float32' | 'bfloat16' | 'int8', out: number, columns: number): GpuMatrix => {
    const { format, values, levels } = matrixOf(draw, { kind }, out, columns);
    const placed = { values: buffers.filled(values), ...(kind === 'int8' && { levels: buffers.filled(levels) }) };
    return boundMatrix(format, [out, columns], most, placed);
  };
  const layer = {
    ...{
      gamma: numbers(hidden),
      inProj: matrix('bfloat16', inner + channels + heads, hidden),
      taps: numbers(channels * taps),
    },
    ...{ heads: numbers(3 * heads), normGamma: numbers(inner), outProj: matrix('float32', hidden, inner) },
  };
  const embedding = matrix('float32', vocabulary, hidden);
  const head = matrix('int8', vocabulary, hidden);
  return {
    steps: new DecodingSteps(device, SIZES, { embedding, layers: [layer], gamma: numbers(hidden), head }, batch),
    buffers,
  };
}

onWebGpu('WGSL steps', (device) => {
  const made: { dispose(): void }[] = [];
  afterEach(() => made.splice(0).forEach((each) => each.dispose()));
  const take = async (most: number, batch = 1): Promise<DecodingSteps> => {
    const { steps, buffers } = stepsOf(device(), most, batch);
    made.push(steps, buffers);
    await steps.ready;
    return steps;
  };

  it('a matrix beyond what can be bound is multiplied in parts', async () => {
    const whole = await take(2 ** 27);
    const parts = await take(256 * 16);
    // 700 rows in three parts of 256, of the embedding and of the head
    expect([whole.dispatches, parts.dispatches]).to.deep.equal([1 + 4 + 1 + 1, 3 + 4 + 3 + 1]);
    for (const steps of [whole, parts]) steps.feed([699]);
    const [want] = await decoded(whole, 40);
    expect(await decoded(parts, 40)).to.deep.equal([want]);
    expect(new Set(want!.map((id) => id >> 8)).size, 'parts that ids are from').to.equal(3);
  });

  it('blocks that are asked for at once follow one another', async () => {
    const [steps, again] = [await take(2 ** 27), await take(2 ** 27)];
    for (const each of [steps, again]) each.feed([1]);
    const blocks = await Promise.all([4, 1, 5].map((count) => steps.decode(count, CHOICE)));
    expect([blocks.flatMap(([ids]) => [...ids!])]).to.deep.equal(await decoded(again, 10));
  });

  for (const batch of [2, 8, 11])
    it(`${batch} rows write what each writes alone, in parts, too`, async () => {
      const tokens = Array.from({ length: batch }, (_, row) => (row * row * 31 + 5) % 700);
      const alone = await take(2 ** 27);
      const want: number[][] = [];
      for (const token of tokens) {
        for (const { context, state } of alone.states) {
          const zeros = (size: number): Float32Array => new Float32Array(size / 4);
          device().queue.writeBuffer(context, 0, zeros(context.size));
          device().queue.writeBuffer(state, 0, zeros(state.size));
        }
        alone.feed([token]);
        want.push((await decoded(alone, 20))[0]!);
      }
      expect(new Set(want.map(String)).size, 'texts').to.be.above(1);
      for (const most of [2 ** 27, 256 * 16]) {
        const steps = await take(most, batch);
        steps.feed(tokens);
        expect(await decoded(steps, 20)).to.deep.equal(want);
      }
      const { dispatches } = await take(2 ** 27, batch);
      expect(dispatches).to.equal(alone.dispatches);
    });

  it('a device that binds less than a part is told of', () => {
    const small = Object.create(device(), { limits: { value: { maxStorageBufferBindingSize: 1000, maxBufferSize: 1 } }, lost: { value: device().lost } }) as GpuDevice; // prettier-ignore
    for (const name of [
      'createBuffer',
      'createShaderModule',
      'createComputePipeline',
      'pushErrorScope',
      'popErrorScope',
    ] as const)
      Object.assign(small, { [name]: (device()[name] as () => unknown).bind(device()) });
    expect(() => stepsOf(small, 2 ** 27)).to.throw(/has 44800 bytes, and this WebGPU device binds 1000 at a time/);
  });

  it('says that the device was lost, in the middle of a block and after it', async () => {
    const own = (await newDevice())!;
    const { steps } = stepsOf(own, 2 ** 27);
    await steps.ready;
    steps.feed([1]);
    const running = steps.decode(64, CHOICE).catch((error: unknown) => error);
    own.destroy();
    await own.lost;
    const error = await running;
    expect(error).to.be.instanceOf(DeviceError);
    expect((error as Error).message).to.match(/^The WebGPU device was lost \(destroyed/);
    expect(() => steps.feed([1])).to.throw(DeviceError, /was lost/);
  });

  it('is refused once it is disposed of, in the middle of a block, too', async () => {
    const steps = await take(2 ** 27);
    steps.feed([1]);
    const running = steps.decode(8, CHOICE).catch((error: unknown) => error);
    await Promise.resolve();
    steps.dispose();
    expect(await running).to.be.instanceOf(DisposedError);
    expect(() => steps.feed([1])).to.throw(DisposedError);
  });
});

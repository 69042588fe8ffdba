import { expect } from 'chai';
import { outOfMemory } from '../../../src/jit/program/memory_error.js';
import type { VariableSpec } from '../../../src/jit/types.js';

describe('memory that a GPU does not have', () => {
  const variables: VariableSpec[] = [
    { shape: [1024, 1024, 1024], dtype: 'bfloat16' },
    { shape: [2 ** 28], dtype: 'float32' },
  ];
  const memory = () => [{ total: 80 * 2 ** 30, free: 2 ** 29 }];
  const failing = (text: string) => outOfMemory(text, "program: run('f')", variables, 'Use a smaller batch.', memory);

  it('says what was asked for, what is held, what is there and what to do', () => {
    const error = failing('Out of memory while trying to allocate 12884901888 bytes.')!;
    expect(error.name).to.equal('DeviceError');
    expect(error.message).to.match(/^program: run\('f'\) failed: .*12\.0 GiB more; .* take 3\.0 GiB/);
    expect(error.message).to.match(
      /GPU 0 has 80\.0 GiB, of which 0\.500 GiB are free.* Use a smaller batch\. Call dispose\(\)/,
    );
    expect(error.data).to.include({ asked: 12 * 2 ** 30, variables: 3 * 2 ** 30 });
  });

  for (const [text, asked] of [
    ['OOM when allocating tensor with shape[8,2048,50288] and type float on /job:localhost', 8 * 2048 * 50288 * 4],
    ['RESOURCE_EXHAUSTED: Failed to allocate request for 20.51GiB (22020096000B) on device ordinal 0', 20.51 * 2 ** 30],
    ['RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50GiB.', 1.5 * 2 ** 30],
    ['failed to allocate memory', null],
    // as an H100 with gpuMemoryLimit: 3000 said it of a model of 5.2 GiB
    [
      '2 root error(s) found.\n  (0) RESOURCE_EXHAUSTED: SameWorkerRecvDone unable to allocate output tensor. Key: /job:localhost/replica:0/task:0/device:CPU:0;0000000000000001;/job:localhost/replica:0/task:0/device:GPU:0;edge_1949_set_bfloat16_bits;0:0',
      null,
    ],
  ] as const) {
    it(`knows "${text.slice(0, 50)}"`, () => {
      const error = failing(text)!;
      if (asked !== null) expect(error.data.asked).to.equal(asked);
      expect(error.message).to.contain('not enough memory');
    });
  }

  it('says what a limit leaves out', () => {
    const before = process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB;
    process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB = '75000';
    try {
      expect(failing('OOM')!.message).to.contain('gpuMemoryLimit leaves 73.2 GiB of it to others.');
    } finally {
      if (before === undefined) delete process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB;
      else process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB = before;
    }
    if (before === undefined) expect(failing('OOM')!.message).not.to.contain('gpuMemoryLimit');
  });

  it('leaves other failures alone', () => {
    expect(failing('INVALID_ARGUMENT: shapes differ')).to.equal(null);
  });
});

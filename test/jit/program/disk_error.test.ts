import { expect } from 'chai';
import { diskFull } from '../../../src/jit/program/disk_error.js';
import { outOfMemory } from '../../../src/jit/program/memory_error.js';

describe('a file that cannot be written', () => {
  const none = new Map().values();

  it('is told from memory, for which TensorFlow has the same code', () => {
    const text =
      'RESOURCE_EXHAUSTED: /tmp/x/xla_compile_cache__1__2__XLA_CPU_JIT.pb.tmp; No space left on device\n\t [[{{node call_f}}]]\nHint: If you want to see a list of allocated tensors when OOM happens';
    const error = diskFull(text, 'program: f')!;
    expect(error.message).to.match(/^program: f failed: a file could not be written \(No space left on device\)/);
    expect(error.message)
      .to.match(/TMPDIR/)
      .and.not.match(/memory/);
    for (const other of ['Disk quota exceeded', 'File too large', 'Read-only file system', 'ENOSPC: no space left'])
      expect(diskFull(other, 'f')).to.be.instanceOf(Error);
  });

  it('is not memory', () => {
    const text = 'RESOURCE_EXHAUSTED: OOM when allocating tensor with shape[4096,4096] and type float on /device:GPU:0';
    expect(diskFull(text, 'f')).to.equal(null);
    expect(outOfMemory(text, 'f', none)).to.be.instanceOf(Error);
  });
});

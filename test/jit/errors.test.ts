import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2Error } from '../../src/base/errors.js';
import { jit, JitError, TracingError } from '../../src/jit/index.js';
import { useBackend } from '../support/backends.js';

describe('JitError', () => {
  before(() => useBackend('tensorflow'));

  it('is what code that cannot be compiled throws', () => {
    const reads = jit((x: tf.Tensor) => tf.scalar(x.dataSync()[0]!));
    const x = tf.scalar(1);
    expect(() => reads(x))
      .to.throw(JitError, /read while tracing/)
      .that.is.instanceOf(TracingError)
      .and.is.instanceOf(Mamba2Error);
    x.dispose();
    reads.dispose();
  });
});

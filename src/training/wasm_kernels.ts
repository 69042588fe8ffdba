/** What TensorFlow.js' WebAssembly backend lacks of what a training step asks of it. Importing this file registers it. */
import * as tf from '@tensorflow/tfjs';

/** The gradient of looking up rows: rows of one number are added up. A row whose number is none (below 0, or too large) is left out. */
tf.registerKernel({
  kernelName: 'UnsortedSegmentSum',
  backendName: 'wasm',
  kernelFunc: ({ inputs, attrs }) => {
    const [x, ids] = [inputs['x'] as tf.Tensor, inputs['segmentIds'] as tf.Tensor1D];
    const { numSegments } = attrs as unknown as { numSegments: number };
    const width = x.size / Math.max(1, ids.size);
    const out = new Float32Array(numSegments * width);
    const [values, numbers] = [x.dataSync<'float32'>(), ids.dataSync<'int32'>()];
    numbers.forEach((id, row) => {
      if (id < 0 || id >= numSegments) return;
      for (let i = 0; i < width; i++) out[id * width + i]! += values[row * width + i]!;
    });
    return tf.tensor(out, [numSegments, ...x.shape.slice(ids.rank)], 'float32');
  },
});

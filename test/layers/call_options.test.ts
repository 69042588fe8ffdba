/** What calls of layers take beside their inputs is checked by name, before the inputs are looked at. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { Mamba2Block, Mamba2Mixer, ssdChunkScan, ssdStep, TokenEmbedding } from '../../src/layers.js';

const SIZES = { hiddenSize: 8, numHeads: 2, headDim: 4, nGroups: 1, stateSize: 4 };

/** No input at all: an error that speaks of the options came before any other argument was looked at. */
const NOTHING = undefined as unknown as tf.Tensor3D;

function refused(run: () => unknown, says: RegExp, option: string): void {
  try {
    run();
  } catch (error) {
    expect(error).to.be.instanceOf(ArgumentError);
    expect((error as Error).message).to.match(says);
    expect((error as ArgumentError).data).to.include({ option });
    return;
  }
  expect.fail(`nothing was thrown where ${option} was given`);
}

describe('options of layers’ calls', () => {
  before(() => tf.setBackend('cpu'));

  for (const Layer of [Mamba2Mixer, Mamba2Block]) {
    const layer = new Layer(SIZES);
    const calls = {
      forward: (options: object) => layer.forward(NOTHING, {}, options),
      callAndReturnState: (options: object) => layer.callAndReturnState(NOTHING, options),
    };
    for (const [name, call] of Object.entries(calls))
      it(`${Layer.className}.${name}() refuses misspelt, foreign and wrong ones`, () => {
        const where = `${Layer.className}.${name}\\(\\)`;
        refused(
          () => call({ chunkSiz: 4 }),
          new RegExp(`^${where} has no option chunkSiz. Did you mean chunkSize`),
          'chunkSiz',
        );
        refused(() => call({ attention_mask: null }), /It is called mask here/, 'attention_mask');
        refused(() => call({ chunkSize: 0 }), /chunkSize is 0; expected an integer of 1 or more/, 'chunkSize');
        refused(() => call({ mask: [[1, 1]] }), /mask is .*expected a tensor \[b, t\]/, 'mask');
        refused(() => call({ state: {} }), /expected a state that a call returned/, 'state');
      });

    it(`${Layer.className} goes on from a state that it returned, with all options at their defaults`, () => {
      const x = tf.randomNormal([1, 6, 8], 0, 1, 'float32', 1) as tf.Tensor3D;
      const whole = layer.callAndReturnState(x).y;
      const first = layer.callAndReturnState(tf.slice(x, [0, 0, 0], [1, 4, 8]), {
        mask: tf.ones([1, 4]),
        bf16Scan: false,
      });
      const rest = layer.callAndReturnState(tf.slice(x, [0, 4, 0], [1, 2, 8]), { state: first.state, chunkSize: 2 });
      const joined = tf.concat([first.y, rest.y], 1);
      expect(tf.max(tf.abs(tf.sub(joined, whole))).dataSync()[0]).to.be.lessThan(1e-5);
    });
  }

  it('TokenEmbedding.call() refuses what is not reverse', () => {
    const layer = new TokenEmbedding({ vocabSize: 5, hiddenSize: 4 });
    const call = (kwargs: object) => () => layer.call(NOTHING, kwargs);
    refused(call({ revers: true }), /has no option revers. Did you mean reverse/, 'revers');
    refused(call({ reverse: 'yes' }), /reverse is "yes"; expected true or false/, 'reverse');
  });

  it('ssdChunkScan() and ssdStep() name inputs that are misspelt, missing or no tensors', () => {
    const x = tf.zeros([1, 2, 2, 4]) as tf.Tensor4D;
    const scan = (inputs: object) => () => ssdChunkScan(inputs as Parameters<typeof ssdChunkScan>[0], 2);
    const step = (inputs: object) => () => ssdStep(inputs as Parameters<typeof ssdStep>[0]);
    refused(
      scan({ x, initalState: x }),
      /^ssdChunkScan\(\) has no option initalState. Did you mean initialState/,
      'initalState',
    );
    refused(scan({ x, seq_idx: null }), /It is called segments here/, 'seq_idx');
    refused(scan({ x }), /ssdChunkScan\(\) needs dt: a tensor \[b, t, h\]/, 'dt');
    refused(scan({ x, dt: 1 }), /dt is 1; expected a tensor/, 'dt');
    refused(step({ x: tf.zeros([1, 2, 4]), initialState: x }), /It is called state here/, 'initialState');
    refused(step({}), /ssdStep\(\) needs x/, 'x');
  });
});

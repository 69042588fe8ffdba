/**
 * One battery for every layer, in the manner of keras-hub's run_layer_test: shape, value and gradients against the
 * float64 oracle, tensors left over, configuration and model round trips.
 */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import type { SpecLayer } from '../../src/layers/base.js';
import { onBackends, tensorCount } from './backends.js';
import { expectClose } from './compare.js';
import { arr, type Arr, type Arrs, dot, numericGradient, randomArr, toTensor } from './oracle.js';
import { lcg } from './random.js';

export interface LayerCase<Args> {
  /** What is special about it, for the title. */
  title: string;
  layer: new (args: Args) => SpecLayer;
  args: Args;
  /** Shapes of the inputs, batch included. */
  inputs: number[][];
  /** Inputs are ids below this number; they have no gradient. */
  ids?: number;
  outputShape: number[];
  /** Names of the weights, in order. */
  weights: string[];
  /** What the layer computes. */
  oracle: (weights: Arrs, inputs: Arr[]) => Arr;
  /** Keyword arguments of apply(). */
  kwargs?: Record<string, boolean>;
  /** Absolute; default 1e-5 for values, ten times that for gradients. */
  tolerance?: number;
  /** Backends without a kernel that the gradient needs. */
  forwardOnly?: readonly string[];
}

/** The layer, built and with weights of no special values: a bias of zeros or a scale of ones would hide mistakes. */
function prepare<Args>(test: LayerCase<Args>, seed: number): { layer: SpecLayer; weights: Arrs; inputs: Arr[] } {
  const random = lcg(seed);
  const layer = new test.layer(test.args);
  tf.tidy(() => {
    const zeros = test.inputs.map((shape) => tf.zeros(shape, test.ids === undefined ? 'float32' : 'int32'));
    layer.apply(zeros.length > 1 ? zeros : zeros[0]!, test.kwargs);
  });
  const weights: Record<string, Arr> = {};
  for (const { name, shape } of layer.specs()) weights[name] = randomArr(random, shape);
  tf.tidy(() => layer.setWeights(Object.values(weights).map(toTensor)));
  const inputs = test.inputs.map((shape) =>
    test.ids === undefined
      ? randomArr(random, shape)
      : arr(shape, randomArr(random, shape, 0, test.ids).data.map(Math.floor)),
  );
  return { layer, weights, inputs };
}

/** Declares the tests of one layer on every backend. */
export function runLayerTest<Args>(test: LayerCase<Args>): void {
  const tolerance = test.tolerance ?? 1e-5;
  onBackends(['tensorflow', 'wasm', 'cpu'], `${test.layer.name}, ${test.title}`, (backend) => {
    const made: SpecLayer[] = [];
    const ready = (seed: number): ReturnType<typeof prepare> => {
      const all = prepare(test, seed);
      made.push(all.layer);
      return all;
    };
    const tensors = (inputs: Arr[]): tf.Tensor[] =>
      inputs.map((input) => (test.ids === undefined ? toTensor(input) : tf.cast(toTensor(input), 'int32')));
    const apply = (layer: SpecLayer, inputs: tf.Tensor[]): tf.Tensor =>
      layer.apply(inputs.length > 1 ? inputs : inputs[0]!, test.kwargs) as tf.Tensor;
    let start: ReturnType<typeof tensorCount>;
    beforeEach(() => (start = tensorCount()));
    afterEach(() => {
      made.splice(0).forEach((layer) => layer.dispose());
      expect(tensorCount(), 'tensors left after dispose').to.deep.equal(start);
    });

    it('declares its weights and the shape of its output', () => {
      const { layer } = ready(1);
      expect(layer.specs().map(({ name }) => name)).to.deep.equal(test.weights);
      expect(layer.weights.map(({ shape }) => shape)).to.deep.equal(layer.specs().map(({ shape }) => shape));
      expect(layer.trainableWeights.length).to.equal(test.weights.length);
      expect(layer.computeOutputShape(test.inputs.length > 1 ? test.inputs : test.inputs[0]!)).to.deep.equal(
        test.outputShape,
      );
    });

    it('computes what the oracle computes and leaves one tensor', () => {
      const { layer, weights, inputs } = ready(2);
      const given = tf.tidy(() => tensors(inputs));
      const before = tensorCount();
      const y = apply(layer, given);
      expect(tensorCount().tf - before.tf, 'tensors made').to.equal(1);
      expect(y.shape).to.deep.equal(test.outputShape);
      expect(y.dtype).to.equal('float32');
      expectClose(y, test.oracle(weights, inputs).data, tolerance);
      tf.dispose([y, ...given]);
    });

    if (!test.forwardOnly?.includes(backend)) {
      it('has the gradients of the oracle', () => {
        const { layer, weights, inputs } = ready(3);
        const direction = randomArr(lcg(4), test.outputShape);
        const scalar = (): number => dot(test.oracle(weights, inputs), direction);
        tf.tidy(() => {
          const given = tensors(inputs);
          const toward = toTensor(direction);
          const loss = (): tf.Scalar => tf.sum(tf.mul(apply(layer, given), toward)) as tf.Scalar;
          const variables = Object.values(layer.weightMap()) as tf.Variable[];
          const { grads } = tf.variableGrads(loss, variables);
          test.weights.forEach((name, i) => {
            const wanted = numericGradient(weights[name]!, scalar);
            expectClose(grads[variables[i]!.name]!, wanted.data, 10 * tolerance, `gradient of ${name}`);
          });
          if (test.ids !== undefined) return;
          const inputGrads = tf.grads((...xs: tf.Tensor[]) => tf.sum(tf.mul(apply(layer, xs), toward)))(given);
          inputGrads.forEach((grad, i) =>
            expectClose(grad, numericGradient(inputs[i]!, scalar).data, 10 * tolerance, `gradient of input ${i}`),
          );
        });
      });
    }

    it('comes back from its configuration', () => {
      const { layer } = ready(5);
      const config = JSON.parse(JSON.stringify(layer.getConfig())) as tf.serialization.ConfigDict;
      const again =
        tf.serialization.SerializationMap.getMap().classNameMap[
          (test.layer as unknown as { className: string }).className
        ]!;
      const copy = new again[0](config) as SpecLayer;
      made.push(copy);
      expect(copy).to.be.instanceOf(test.layer);
      expect(copy.getConfig()).to.deep.equal(layer.getConfig());
      expect(copy.specs().map(({ name, shape }) => [name, shape])).to.deep.equal(
        layer.specs().map(({ name, shape }) => [name, shape]),
      );
    });

    it('comes back from a saved model with its weights and its configuration', async () => {
      const { layer, inputs } = ready(6);
      const dtype = test.ids === undefined ? 'float32' : 'int32';
      const symbols = test.inputs.map((shape) => tf.input({ batchShape: [null, ...shape.slice(1)], dtype }));
      const output = layer.apply(symbols.length > 1 ? symbols : symbols[0]!, test.kwargs) as tf.SymbolicTensor;
      expect(output.shape.slice(1)).to.deep.equal(test.outputShape.slice(1));
      const model = tf.model({ inputs: symbols, outputs: output });
      let artifacts: tf.io.ModelArtifacts | undefined;
      await model.save(
        tf.io.withSaveHandler(async (given) => {
          artifacts = JSON.parse(JSON.stringify({ ...given, weightData: undefined })) as tf.io.ModelArtifacts;
          artifacts.weightData = given.weightData;
          return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } };
        }),
      );
      const loaded = await tf.loadLayersModel(tf.io.fromMemory(artifacts!));
      const copy = loaded.layers[loaded.layers.length - 1]!;
      expect(copy.getConfig()).to.deep.equal(layer.getConfig());
      tf.tidy(() => {
        const given = tensors(inputs);
        const want = apply(layer, given);
        expectClose(loaded.predict(given.length > 1 ? given : given[0]!) as tf.Tensor, want, 0, 'predictions');
      });
      loaded.dispose();
      model.dispose(); // counts as one of the layer's two uses
    });
  });
}

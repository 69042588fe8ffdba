/** Loss, gradients and AdamW steps of whole models against torch autograd in float64. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { AdamW } from '../../src/training/adamw_optimizer.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { expectClose, expectTensor, largestDifference } from '../support/compare.js';
import { type AdamWSettings, loadGolden } from '../support/goldens.js';

for (const name of ['gradients/g1', 'gradients/g2']) {
  describe(`${name}: loss, gradients, AdamW steps`, () => {
    const golden = loadGolden(name);
    const input_ids = golden.inputs.input_ids as number[][];
    const labels = golden.inputs.labels as number[][];
    const settings = golden.inputs.adamw as AdamWSettings;
    let model: Mamba2ForCausalLM;
    const loss = (): tf.Scalar => model.forward({ input_ids, labels, use_cache: false }).loss!;
    const variables = (): tf.Variable[] => Object.values(model.weights.all()) as tf.Variable[];

    before(() => useBackend('tensorflow'));
    beforeEach(async () => {
      const { config, source } = await loadCheckpoint(golden.dir);
      model = new Mamba2ForCausalLM(config, source);
    });
    afterEach(() => model.dispose());

    it('gives the loss and the gradient of every parameter', () => {
      tf.tidy(() => {
        const { value, grads } = tf.variableGrads(loss, variables());
        expectClose(value, golden.tensor('loss').data, 1e-5, 'loss');
        for (const [key, weight] of Object.entries(model.weights.all())) {
          expectTensor(grads[(weight as tf.Variable).name]!, golden.tensor(`grad.${key}`), 1e-4, key);
        }
      });
    });

    it('follows the optimiser for as many steps', () => {
      const list = variables();
      const optimizer = new AdamW({
        learningRate: settings.lr,
        beta1: settings.betas[0],
        beta2: settings.betas[1],
        epsilon: settings.eps,
        weightDecay: settings.weight_decay,
        maxGradNorm: settings.max_grad_norm,
        decays: (_, shape) => shape.length >= 2,
      });
      const losses: number[] = [];
      const norms: number[] = [];
      let count: { tf: number; binding: number } | null = null;
      for (let step = 0; step < settings.steps; step++) {
        const value = optimizer.minimize(loss, true, list)!;
        losses.push(value.dataSync()[0]!);
        norms.push(optimizer.lastGradNorm!);
        value.dispose();
        if (count) expect(tensorCount(), 'tensors after a step').to.deep.equal(count);
        count = tensorCount();
      }
      losses.push(tf.tidy(() => loss().dataSync()[0]!));
      expectClose(losses, golden.tensor('adamw.losses').data, 1e-4, 'losses');
      expectClose(norms, golden.tensor('adamw.grad_norms').data, 1e-4, 'norms');
      let entries = 0;
      let far = 0;
      for (const [key, weight] of Object.entries(model.weights.all())) {
        const got = (weight as tf.Variable).dataSync();
        const want = golden.tensor(`final.${key}`).data;
        expect(largestDifference(got, want).difference, key).to.be.at.most(2e-3);
        entries += got.length;
        got.forEach((value, i) => (far += Math.abs(value - want[i]!) > 1e-4 ? 1 : 0));
      }
      expect(far / entries).to.be.at.most(0.001);
      optimizer.dispose();
    });
  });
}

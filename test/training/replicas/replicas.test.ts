/** Training over several devices gives what one device gives: losses, norms, weights, snapshots. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { get_peft_model } from '../../../src/peft/index.js';
import {
  AdamW,
  CausalLMTrainer,
  type CompileArgs,
  listCheckpoints,
  type TrainableModel,
  Trainer,
  type TrainingArguments,
  trainableOf,
} from '../../../src/training/index.js';
import { causalOf } from '../../../src/training/trainable.js';
import { bucketsOf } from '../../../src/training/replicas/graph.js';
import { useBackend } from '../../support/backends.js';
import { Cluster } from '../../../src/runtime/cluster/cluster.js';
import { learner, unevenExamples as examples } from '../../support/learner.js';
import { freePort, type RunningWorker, startTestWorker } from '../../support/test_worker.js';

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'replicas-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

/** The same start every time. */
function fresh(lora: boolean): TrainableModel {
  const model = learner();
  return lora
    ? get_peft_model(model, { r: 4, lora_alpha: 8, target_modules: ['in_proj', 'out_proj'] }, { seed: 3 })
    : model;
}

interface Run {
  losses: number[];
  norms: number[];
  weights: Map<string, Float32Array>;
}

async function train(lora: boolean, more: Partial<TrainingArguments>, resume = false): Promise<Run> {
  const model = fresh(lora);
  const trainer = new Trainer({
    model,
    args: {
      output_dir: dir,
      learning_rate: 1e-2,
      weight_decay: 0.01,
      per_device_train_batch_size: 7,
      gradient_accumulation_steps: 2,
      max_steps: 20,
      logging_steps: 1,
      save_strategy: 'no',
      disable_tqdm: true,
      torch_compile: false, // op by op, which starts at once; one test compiles
      ...more,
    },
    train_dataset: examples,
    on_warning: () => undefined,
  });
  try {
    await trainer.train({ resume_from_checkpoint: resume });
    const logs = trainer.state.log_history.filter((e) => 'loss' in e);
    const weights = [...trainableOf(model).trainable()].map(([n, v]) => [n, v.dataSync<'float32'>().slice()] as const);
    return { losses: logs.map((e) => e['loss']!), norms: logs.map((e) => e['grad_norm']!), weights: new Map(weights) };
  } finally {
    trainer.dispose();
    model.dispose();
    causalOf(model).dispose();
  }
}

/** To 1e-5, what losses are asked to agree to; weights to what 20 updates of 1e-2 make of gradients that are near 0 and differ in the last digit. */
function expectSame(got: Run, expected: Run): void {
  expect(got.losses).to.have.length(expected.losses.length);
  got.losses.forEach((loss, i) => expect(loss, `loss ${i}`).to.be.closeTo(expected.losses[i]!, 1e-5));
  got.norms.forEach((norm, i) => expect(norm, `norm ${i}`).to.be.closeTo(expected.norms[i]!, 1e-4));
  for (const [name, values] of expected.weights)
    got.weights.get(name)!.forEach((value, i) => expect(value, `${name} ${i}`).to.be.closeTo(values[i]!, 1e-3));
}

describe('training over several devices', function () {
  this.timeout(300_000);
  const workers: RunningWorker[] = [];
  const addresses = (): string[] => workers.map(({ address }) => address);
  const alone = new Map<boolean, Run>();
  before(async () => {
    await useBackend('tensorflow');
    workers.push(...(await Promise.all([startTestWorker(), startTestWorker()])));
  });
  after(() => workers.forEach(({ child }) => child.kill('SIGKILL')));

  for (const lora of [false, true]) {
    const kind = lora ? 'adapters' : 'all weights';
    it(`${kind}: two workers give the losses of this process alone, with accumulation`, async () => {
      alone.set(lora, await train(lora, {}));
      const before = tf.memory().numTensors;
      expectSame(await train(lora, { workers: addresses() }), alone.get(lora)!);
      expect(tf.memory().numTensors).to.equal(before);
      expect(alone.get(lora)!.losses[19]).to.be.below(alone.get(lora)!.losses[0]!);
    });
  }

  it('three devices of this machine give them too, and batches of their own updates', async () => {
    expectSame(await train(false, { data_parallel: 3 }), alone.get(false)!);
    const args = { gradient_accumulation_steps: 1, max_steps: 9 };
    expectSame(await train(true, { ...args, data_parallel: 2 }), await train(true, args));
  });

  it('fit() gives the losses of one device, on devices of this machine and on workers, and its evaluate() too', async () => {
    const fitted = async (step: NonNullable<CompileArgs['step']>): Promise<number[]> => {
      const model = fresh(false);
      const learner = new CausalLMTrainer(model);
      try {
        learner.compile({ optimizer: new AdamW({ learningRate: 1e-2 }), step: { xla: false, ...step } });
        const { history } = await learner.fit(examples, { epochs: 2, batchSize: 7, validationData: examples.slice(0, 5) }); // prettier-ignore
        const ids = [[1, 2, 3]];
        const logits = learner.predict(ids); // of the weights as they are now
        const sum = logits.abs().sum().dataSync()[0]!;
        logits.dispose();
        return [...(history['loss'] as number[]), ...(history['val_loss'] as number[]), sum / 1000];
      } finally {
        learner.dispose();
        model.dispose();
      }
    };
    const want = await fitted({});
    for (const step of [{ dataParallel: 3 }, { workers: addresses() }]) {
      const got = await fitted(step);
      got.forEach((value, i) => expect(value, `${JSON.stringify(step)}, ${i}`).to.be.closeTo(want[i]!, 1e-5));
    }
    const model = fresh(false);
    const learner = new CausalLMTrainer(model);
    expect(() => learner.compile({ optimizer: 'sgd', step: { dataParallel: 2 } })).to.throw(/dataParallel needs AdamW/);
    expect(() => learner.compile({ step: { dataParallel: 0 } })).to.throw(/dataParallel/);
    expect(() => learner.compile({ step: { engine: 'eager', dataParallel: 2 } })).to.throw(/needs a compiled step/);
    learner.compile({ step: { xla: false, dataParallel: 3 } });
    const error = await learner.fit(examples, { batchSize: 2 }).catch((e: Error) => e);
    expect((error as Error).message).to.include('batchSize: 3 replicas share the 2 rows');
    learner.dispose();
    model.dispose();
  });

  it('compiled by XLA, on workers', async () => {
    const args = { torch_compile: true, gradient_accumulation_steps: 1, max_steps: 4 };
    expectSame(await train(true, { ...args, workers: addresses() }), await train(true, args));
  });

  it('a worker that is killed ends the run with its name; resumed with one worker, it gives what an unbroken run gives', async () => {
    const [, second] = workers;
    const args = { save_strategy: 'steps' as const, save_steps: 4, workers: addresses(), torch_compile: false };
    const model = fresh(false);
    const trainer = new Trainer({
      model,
      args: {
        ...{
          output_dir: dir,
          learning_rate: 1e-2,
          weight_decay: 0.01,
          per_device_train_batch_size: 7,
          disable_tqdm: true,
        },
        ...{ gradient_accumulation_steps: 2, max_steps: 20, logging_steps: 1, ...args },
      },
      train_dataset: examples,
      callbacks: [
        {
          on_step_end: (_args, { global_step }) => {
            if (global_step === 10) second!.child.kill('SIGKILL');
          },
        },
      ],
    });
    const began = performance.now();
    const error = (await trainer.train().catch((e: Error) => e)) as Error;
    expect(error.message).to.include(`The worker ${second!.address} is lost`);
    expect(performance.now() - began).to.be.below(60_000);
    trainer.dispose();
    model.dispose();
    expect(listCheckpoints(dir).map(({ step }) => step)).to.deep.equal([4, 8]);
    const resumed = await train(false, { ...args, workers: [workers[0]!.address] }, true);
    expectSame(resumed, alone.get(false)!);
  });

  it('says what is wrong with what it is given', async () => {
    const message = async (more: Partial<TrainingArguments>): Promise<string> =>
      train(false, more).then(
        () => 'nothing',
        (e: Error) => e.message,
      );
    const [{ address }] = workers as [RunningWorker];
    expect(await message({ workers: [address, address] })).to.include(`${address} is there twice`);
    expect(await message({ workers: ['nowhere'] })).to.include('workers: got "nowhere", expected HOST:PORT');
    expect(await message({ data_parallel: 3, per_device_train_batch_size: 2 })).to.include(
      '3 replicas share the 2 rows',
    );
    expect(await message({ workers: [address], data_parallel: 2 })).to.include(
      '2 replicas were asked for, and there are 1',
    );
    expect(await message({ workers: [address], engine: 'eager' })).to.include('workers needs a compiled step');
    const port = await freePort();
    const unreachable = Cluster.open([address, `127.0.0.1:${port}`], { wait: 600 });
    expect(((await unreachable.catch((e: Error) => e)) as Error).message).to.match(
      new RegExp(`The worker 127.0.0.1:${port} cannot be reached: nobody listens there. .*mamba2 worker --listen`),
    );
    expect(await message({ workers: [] })).to.include('workers');
    expect(await message({ data_parallel: 0 })).to.include('data_parallel');
  });
});

describe('bucketsOf()', () => {
  it('gives each tensor to one device, evenly, in pieces that are not too large', () => {
    const sizes = [100, 7, 50, 50, 3, 20];
    const buckets = bucketsOf(sizes, 2, 60);
    expect(buckets.flatMap(({ members }) => members).sort()).to.deep.equal([0, 1, 2, 3, 4, 5]);
    const loads = [0, 1].map((k) =>
      buckets.filter(({ owner }) => owner === k).reduce((sum, { size }) => sum + size, 0),
    );
    expect(loads).to.deep.equal([120, 110]);
    for (const { members, size } of buckets) {
      expect(size).to.equal(members.reduce((sum, i) => sum + sizes[i]!, 0));
      expect(members.length === 1 || size <= 60).to.equal(true);
    }
  });
});

/**
 * Several devices for tests that know nothing of them: TEST_SPREAD=device_map or tp_plan has them run compiled engines on two, GPUs with
 * TEST_DEVICE=gpu, else logical devices of the processor.
 */
import type { MapOptions } from '../../src/engine/placement/request.js';
import type { Division } from '../../src/engine/placement/division.js';
import type { Spread } from '../../src/engine/placement/spread.js';
import type { RecurrentLM } from '../../src/engine/recurrent_lm.js';

const WAYS = ['device_map', 'tp_plan'] as const;

function way(): (typeof WAYS)[number] | null {
  const asked = process.env['TEST_SPREAD'];
  const found = WAYS.find((one) => one === asked);
  if (asked && !found) throw new Error(`TEST_SPREAD is '${asked}', expected ${WAYS.join(' or ')}.`);
  return found ?? null;
}

/** Options of from_pretrained(): the second layer and all after it on another device. */
export function spreadOptions(): MapOptions {
  const gpu = process.env['TEST_DEVICE'] === 'gpu';
  const [first, second] = gpu ? [0, 1] : ['cpu:0', 'cpu:1'];
  switch (way()) {
    case 'device_map':
      return {
        device_map: {
          '': second,
          'backbone.embeddings': first,
          'backbone.layers.0': first,
          lm_head: first,
        } as MapOptions['device_map'],
      };
    case 'tp_plan':
      return { tp_plan: 'auto', tp_size: 2 };
    case null:
      return {};
  }
}

/** The same for an engine over a network. */
export function spreadOf(network: RecurrentLM): Spread | null {
  const layers = network.config.num_hidden_layers;
  const one = { device: 0, from: 0, to: 1 };
  const runs: Division['runs'] = layers === 1 ? [one] : [one, { device: 1, from: 1, to: layers }];
  switch (way()) {
    case 'device_map':
      return { devices: [0, 1], embedding: 0, runs, norm: 1, head: 0 };
    case 'tp_plan':
      return { plan: network.tensorParallel!(2), devices: [0, 1] };
    case null:
      return null;
  }
}

/** Models of four layers on several devices. */
import type { Division } from '../../src/engine/placement/division.js';

export const LAYERS = 4;

/** Everything where it is awkward: norm and head apart, a device that comes twice, one that begins with no layer. */
export const DIVISIONS: Record<string, Division> = {
  'two devices': { devices: [0, 1], embedding: 0, runs: [{ device: 0, from: 0, to: 2 }, { device: 1, from: 2, to: 4 }], norm: 1, head: 1 },
  'three devices, one of them twice': {
    devices: [0, 1, 2],
    embedding: 2,
    runs: [{ device: 0, from: 0, to: 1 }, { device: 1, from: 1, to: 2 }, { device: 0, from: 2, to: 4 }],
    norm: 1,
    head: 2,
  },
  'a device that is not the first': { devices: [1], embedding: 0, runs: [{ device: 0, from: 0, to: 4 }], norm: 0, head: 0 },
}; // prettier-ignore

/**
 * Weight-only quantisation, int4 and int8: configuration classes, the arithmetic, the packed matrix that stands in for
 * a weight in eager runs, and the form that compiled programs keep it in.
 */
export * from './config.js';
export * from './quantize.js';
export * from './targets.js';
export * from './plain.js';
export * from './matrix.js';
export * from './storage.js';
export { heldOnce } from './held_once.js';

/** All of the browser's build in one file, TensorFlow.js with it: what a page imports from a CDN. */
export * from './index.js';
export * from './browser.js';
export * as tf from '@tensorflow/tfjs';

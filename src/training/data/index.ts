/** Data for training: reading files, making ids and labels, padding and packing, batches in a seeded order. */
export { type Example, loadExamples, readExamples, type ReadOptions, splitExamples } from './readers.js';
export { tokenizeExample, type TokenizedExample, tokenizeExamples, type TokenizeOptions } from './tokenize.js';
export { bucketLengths, collate, collatePacked, packRows, type PadOptions } from './collate.js';
export { DataLoader, type ExampleSource, type LoaderOptions, shuffled, sourceKind } from './loader.js';

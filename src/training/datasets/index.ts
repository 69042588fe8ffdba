/** Data sets by name: local files and the hub's, in memory or as streams. */
export { Dataset, IterableDataset, type ShuffleOptions, type SplitOptions } from './dataset.js';
export { type DatasetDict, type IterableDatasetDict, load_dataset, type LoadDatasetOptions } from './load_dataset.js';
export type { DataFilesOption } from './data_files.js';

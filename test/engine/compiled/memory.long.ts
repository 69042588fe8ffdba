/** Memory at 780m and 2.7b, in minutes: weights as they are, quantised while loading, batches. Takes 6 GB of disk. */
import { memoryTests } from './memory_of_sizes.js';

memoryTests('780m', [{ title: 'bfloat16', tokens: 20 }]);
memoryTests('2.7b', [
  { title: 'bfloat16', tokens: 20 },
  { title: 'int4, quantised while loading', tokens: 20, int4: true },
  { title: 'four rows', tokens: 20, rows: 4 },
]);

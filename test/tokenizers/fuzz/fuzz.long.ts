/** The same as fuzz.test.ts, with more damaged files of each kind. */
process.env.FUZZ_COUNT ??= '3000';
await import('./fuzz.test.js');

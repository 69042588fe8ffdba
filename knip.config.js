// What nothing uses: files, exports and dependencies. The entries that package.json names are found without being listed.
export default {
  entry: [
    'scripts/**/*.{ts,js,mjs,cjs}',
    'bench/**/*.ts',
    'examples/**/*.ts',
    'test/**/*.{test,long}.ts',
    'test/support/*_run.ts', // processes of their own
  ],
  project: ['src/**/*.ts', 'test/**/*.ts', 'scripts/**/*.{ts,js,mjs,cjs}', 'bench/**/*.ts', 'examples/**/*.ts'],
  // types that a file's own signatures name
  ignoreExportsUsedInFile: { interface: true, type: true },
  // programs of the system
  ignoreBinaries: ['nvidia-smi', 'mkfifo', 'script', /^g\+\+$/],
  // scripts/check/package.mjs starts them
  ignoreDependencies: ['@arethetypeswrong/cli', 'publint'],
};

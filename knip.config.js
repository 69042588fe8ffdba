// What nothing uses: files, exports and dependencies. The entries that package.json names are found without being listed.
export default {
  entry: [
    'scripts/**/*.{ts,js,mjs,cjs}',
    'bench/**/*.ts',
    'examples/**/*.ts',
    'examples/browser/*.js',
    'test/**/*.{test,long}.ts',
    'test/support/*_run.ts', // processes of their own
    'test/support/page/*.ts', // stand for others in a page
    'src/browser/{instead,node}/**/*.ts', // stand for others in the browser's build
    'src/{whole,browser/process,worker_script}.ts',
  ],
  project: ['src/**/*.ts', 'test/**/*.ts', 'scripts/**/*.{ts,js,mjs,cjs}', 'bench/**/*.ts', 'examples/**/*.ts'],
  // types that a file's own signatures name
  ignoreExportsUsedInFile: { interface: true, type: true },
  // programs of the system
  ignoreBinaries: ['nvidia-smi', 'mkfifo', 'script', 'mount', 'umount', /^g\+\+$/],
  // scripts/check/package.mjs starts two of them, scripts/wasm_kernels.ts imports the third by a name without types
  ignoreDependencies: ['@arethetypeswrong/cli', 'publint', 'assemblyscript'],
};

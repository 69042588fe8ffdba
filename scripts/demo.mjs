// `npm run demo`: a small model, trained on old books, continues "Once upon a time".
import { ensureDependencies, ensureRuntime, run } from './lib/ready.mjs';

ensureDependencies();
ensureRuntime(); // without it the model runs on WebAssembly, and the command says so
const prompt = process.argv.slice(2).join(' ') || 'Once upon a time';
const options = [
  '--model',
  'models/tiny-books-mamba2',
  '--max-new-tokens',
  '120',
  '--temperature',
  '0.8',
  '--seed',
  '7',
];
process.exitCode = run(process.execPath, ['bin/mamba2.js', 'generate', ...options, prompt]);

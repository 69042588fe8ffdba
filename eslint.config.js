import js from '@eslint/js';
import ts from 'typescript-eslint';
import { importDirection } from './scripts/lint/import_direction.js';

export default ts.config(
  { ignores: ['dist/**', 'node_modules/**', 'test/fixtures/**', 'models/**', '.gpu/**'] },
  js.configs.recommended,
  ...ts.configs.recommended,
  {
    files: ['**/*.ts'],
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-expressions': 'off',
      'no-console': 'error',
    },
  },
  { files: ['scripts/**', 'bench/**', 'examples/**', 'bin/**'], rules: { 'no-console': 'off' } },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs'],
    languageOptions: {
      globals: { process: 'readonly', console: 'readonly', URL: 'readonly', require: 'readonly', module: 'writable' },
    },
  },
  {
    files: ['src/**/*.ts'],
    plugins: { rooms: { rules: { 'import-direction': importDirection } } },
    rules: { 'rooms/import-direction': 'error' },
  },
);

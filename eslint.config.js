import js from '@eslint/js';
import ts from 'typescript-eslint';
import { importDirection } from './scripts/lint/import_direction.js';

export default ts.config(
  { ignores: ['dist/**', 'node_modules/**', 'test/fixtures/**', 'models/**', '.gpu/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [ts.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-expressions': 'off',
      'no-console': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // [${shape}] is how messages write shapes
      '@typescript-eslint/restrict-template-expressions': ['error', { allowArray: true, allowNumber: true }],
      // `async` without `await` turns what a method throws into a rejection, as its interface promises
      '@typescript-eslint/require-await': 'off',
      // tfjs infers a tensor's rank from the type that is asserted: without the assertion it is another
      '@typescript-eslint/no-unnecessary-type-assertion': [
        'error',
        { typesToIgnore: ['tf.Scalar', 'tf.Tensor1D', 'tf.Tensor2D', 'tf.Tensor3D', 'tf.Tensor4D'] },
      ],
    },
  },
  // tests take methods apart to call them alone
  { files: ['test/**/*.ts'], rules: { '@typescript-eslint/unbound-method': 'off' } },
  { files: ['scripts/**', 'bench/**', 'examples/**', 'bin/**'], rules: { 'no-console': 'off' } },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs'],
    languageOptions: {
      globals: {
        // of pages and workers, which examples/browser is
        ...Object.fromEntries(
          [
            'document',
            'navigator',
            'performance',
            'AbortController',
            'caches',
            'clients',
            'addEventListener',
            'skipWaiting',
            'fetch',
            'Response',
          ].map((name) => [name, 'readonly']),
        ),
        process: 'readonly',
        console: 'readonly',
        URL: 'readonly',
        require: 'readonly',
        module: 'writable',
      },
    },
  },
  {
    files: ['src/**/*.ts'],
    plugins: { rooms: { rules: { 'import-direction': importDirection } } },
    rules: { 'rooms/import-direction': 'error' },
  },
);

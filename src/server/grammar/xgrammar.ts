/**
 * Loads @mlc-ai/web-xgrammar, which says of every token whether it may come next. Its package is declared as ES modules and holds a script
 * for bundlers (UMD), which Node's import cannot read; so it is read as the script that it is.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type * as xgrammar from '@mlc-ai/web-xgrammar';
import { requireFrom, requireNear } from '../../base/package_files.js';
import { ApiError } from '../errors.js';

type Library = typeof xgrammar;

let loading: Promise<Library> | null = null;

/** @throws ApiError 501 where the package, an optional dependency, is not installed */
export function loadXGrammar(): Promise<Library> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Library> {
  let file: string;
  try {
    file = requireNear.resolve('@mlc-ai/web-xgrammar');
  } catch (cause) {
    throw new ApiError(
      'response_format and tools need the package @mlc-ai/web-xgrammar, which this server was installed without.',
      {
        status: 501,
        code: 'not_installed',
        retry: false,
        cause,
      },
    );
  }
  const source = await fs.promises.readFile(file, 'utf8');
  // eslint-disable-next-line @typescript-eslint/no-implied-eval -- code of an installed package, as require() would run it
  const script = new Function('module', 'exports', 'require', '__filename', '__dirname', source);
  const module: { exports: Partial<Library> } = { exports: {} };
  script.call(module.exports, module, module.exports, requireFrom(file), file, path.dirname(file));
  return module.exports as Library;
}

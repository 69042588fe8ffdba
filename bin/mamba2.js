#!/usr/bin/env node
// The command `mamba2`. In a package it runs the built code; in a checkout it runs the sources, which need no build, but under Deno: there tsx,
// which reads them, takes native addons for source text.
import { existsSync } from 'node:fs';

const source = new URL('../src/cli/main.ts', import.meta.url);
const built = new URL('../dist/node/main.js', import.meta.url);

async function load() {
  if (!existsSync(source)) return import(built.href);
  if (process.versions.deno) {
    if (existsSync(built)) return import(built.href);
    process.stderr.write(
      'mamba2: Deno cannot run the sources of a checkout. Run `npm run build` first, which makes dist/, or use Node.js.\n',
    );
    process.exit(1);
  }
  try {
    const { register } = await import('tsx/esm/api');
    register();
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    if (existsSync(built)) return import(built.href);
    process.stderr.write('mamba2: the dependencies of this checkout are not installed. Run `npm ci` first.\n');
    process.exit(1);
  }
  return import(source.href);
}

/** Errors that the operating system makes of a low limit, before there is anybody to tell them. */
function tooManyFiles(error) {
  const text = `${error?.code} ${error?.message} ${error?.cause?.message}`;
  if (!/EMFILE|ENFILE|too many open files/i.test(text)) throw error;
  process.stderr.write('mamba2: Too many open files: the limit (`ulimit -n`) is too low. Raise it to 1024 or more.\n');
  process.exit(1);
}
process.on('uncaughtException', tooManyFiles);

const { main } = await load().catch(tooManyFiles);
process.exitCode = await main(process.argv.slice(2));

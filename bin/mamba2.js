#!/usr/bin/env node
// The command `mamba2`. In a package it runs the built code; in a checkout it runs the sources, which need no build.
import { existsSync } from 'node:fs';

const source = new URL('../src/cli/main.ts', import.meta.url);
const built = new URL('../dist/cli/main.js', import.meta.url);

async function load() {
  if (!existsSync(source)) return import(built.href);
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

const { main } = await load();
process.exitCode = await main(process.argv.slice(2));

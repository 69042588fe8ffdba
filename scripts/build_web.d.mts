import type { Metafile, Plugin } from 'esbuild';

/** Has esbuild take the browser's files for those of Node.js. */
export const browserSources: Plugin;
/** The entries that a page may import, by their names in package.json, and their files in src/. */
export const ENTRIES: Readonly<Record<string, string>>;
/** Modules of Node for which TensorFlow.js has branches, which are not taken. */
export const NOT_TAKEN: string[];
/** Copies TensorFlow.js' WebAssembly binaries into a folder. */
export function copyWasm(outdir: string): void;
/** Node's modules that a build asks for. */
export function nodeImports(metafile: Metafile): string[];
/** Builds into a folder; default dist/web. */
export function buildWeb(outdir?: string): Promise<{ apart: Metafile; whole: Metafile }>;

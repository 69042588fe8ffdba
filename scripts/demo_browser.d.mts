import type { Server } from 'node:http';

/** Builds examples/browser into a folder; default dist/demo. */
export function buildDemo(outdir?: string): Promise<string>;
/** Serves a folder to this machine. */
export function serveFolder(folder: string, port: number): Promise<Server>;

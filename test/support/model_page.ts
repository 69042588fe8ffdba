/** A page that loads the small model of this package from a server on this machine, for tests of what may go wrong on the way. */
import * as fs from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { buildWeb } from '../../scripts/build_web.mjs';
import { openPage, serve, type ServerOptions, type TestServer } from './pages.js';
import type * as Whole from '../../src/whole.js';

declare const m: typeof Whole;

export const MODEL = '/models/tiny-books-mamba2/';
export const WEIGHTS = `${MODEL}model.safetensors`;
/** What the model writes after 'Once upon a time', eight tokens, as in Node.js. */
export const TEXT = 'Once upon a time of year, and a little girl,';
/** Bytes that are asked for at once. */
export const BLOCK = 4 * 2 ** 20;
export const SIZE = fs.statSync('models/tiny-books-mamba2/model.safetensors').size;

/** Folders of a suite: the package's browser build, which before() makes and after() removes. */
export function builtPackage(): { readonly folder: string } {
  const built = { folder: '' };
  before(async () => {
    built.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-page-'));
    await buildWeb(built.folder);
  });
  after(() => fs.rmSync(built.folder, { recursive: true, force: true }));
  return built;
}

export class ModelPage {
  constructor(
    readonly page: Page,
    readonly server: TestServer,
  ) {}

  /** @param host of the page's address, where it is not the server's own */
  static async open(
    browser: Pick<Browser, 'newPage'>,
    folder: string,
    options: Partial<ServerOptions> = {},
    host?: string,
  ) {
    const server = await serve({
      folders: { web: folder, models: 'models', fixtures: 'test/fixtures' },
      pages: { '/': '<!doctype html>' },
      ...options,
    });
    const page = await openPage(browser, host ? server.url.replace('127.0.0.1', host) : server.url);
    const opened = new ModelPage(page, server);
    await opened.start();
    return opened;
  }

  /** The package, called m. */
  async start(): Promise<void> {
    await this.page.evaluate(`import('/web/tfjs-mamba2.min.js').then((m) => { globalThis.m = m; })`);
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.start();
    this.server.requests.length = 0;
  }

  /** Loads the model and writes eight tokens; an error is given back as text. */
  write(model = MODEL): Promise<string> {
    return this.page.evaluate(async (name) => {
      try {
        const generate = await m.pipeline('text-generation', name, { device: 'wasm' });
        const [out] = await generate('Once upon a time', { max_new_tokens: 8, do_sample: false });
        generate.dispose();
        return out!.generated_text;
      } catch (error) {
        return `${(error as Error).name}: ${(error as Error).message}`;
      }
    }, model);
  }

  /** Requests for the weights' bytes. */
  get fetched(): string[] {
    return this.server.requests.filter((each) => each.startsWith('GET') && each.includes('model.safetensors'));
  }

  async close(): Promise<void> {
    await this.page.close();
    await this.server.close();
  }
}

/** First byte that a request is for; null where it is for all. */
export function firstOf({ headers }: IncomingMessage): number | null {
  const told = /^bytes=(\d+)-/.exec(headers.range ?? '');
  return told ? Number(told[1]) : null;
}

/** The bytes that a request is for, the end not included. */
export function rangeOf(request: IncomingMessage, size: number): [number, number] {
  const [, from = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  return [Number(from), Math.min(size, last ? Number(last) + 1 : size)];
}

/** An answer with headers in any order, and a body that need not fit them. */
export function send(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string | number>>,
  body: Uint8Array | string = '',
): true {
  response.writeHead(status, { ETag: '"one"', 'Content-Type': 'application/octet-stream', ...headers });
  if (response.req.method === 'HEAD') response.end();
  else response.end(body);
  return true;
}

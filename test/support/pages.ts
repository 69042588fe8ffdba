/** Real Chromium for tests, and a server of files for it on this machine. */
import { chromium, type Browser, type Page } from 'playwright-core';
import * as fs from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';

/** Chromium, as Debian or a person installed it; null where there is none. */
export function findChromium(): string | null {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  const folders = (process.env['PATH'] ?? '').split(path.delimiter);
  const found = folders.flatMap((folder) => names.map((name) => path.join(folder, name))).find((f) => fs.existsSync(f));
  return process.env['CHROMIUM'] ?? found ?? null;
}

async function startChromium(executablePath: string, args: readonly string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-dev-shm-usage', ...args],
  });
}

/** What a server does with a request, beyond files. */
export interface ServerOptions {
  /** Folders by the first part of an address: { models: 'models' } serves models/… at /models/… */
  readonly folders: Readonly<Record<string, string>>;
  /** Pages by address. */
  readonly pages?: Readonly<Record<string, string>>;
  /** false: a server that sends whole files alone. Default true */
  readonly ranges?: boolean;
  /** Whether pages are cross-origin isolated, so that they may have threads. Default false */
  readonly isolated?: boolean;
  /** Is told of each request; true: the answer breaks off in the middle; a number: that status is the answer. */
  readonly trouble?: (request: http.IncomingMessage) => boolean | number;
  /** Answers in the server's place, where it says so by true. @param bytes of the file that is asked for; null where there is none */
  readonly answer?: (request: http.IncomingMessage, response: http.ServerResponse, bytes: Buffer | null) => boolean;
}

export interface TestServer {
  readonly url: string;
  /** `METHOD address range` of each request so far. */
  readonly requests: string[];
  close(): Promise<void>;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
};

export async function serve(options: ServerOptions): Promise<TestServer> {
  const requests: string[] = [];
  const { folders, pages = {}, ranges = true, isolated = false, trouble, answer } = options;
  const server = http.createServer((request, response) => {
    const url = new URL(request.url!, 'http://localhost');
    const range = request.headers.range ?? '';
    requests.push(`${request.method} ${url.pathname} ${range}`.trim());
    if (isolated) {
      response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
      response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    }
    const page = pages[url.pathname];
    if (page !== undefined) return response.setHeader('Content-Type', 'text/html').end(page);
    // as the hub has them, too
    const [, first = '', ...rest] = decodeURIComponent(url.pathname).replace('/resolve/main/', '/').split('/');
    const root = folders[first];
    const file = root === undefined ? null : path.join(root, ...rest);
    const there = file !== null && fs.existsSync(file) && fs.statSync(file).isFile();
    if (answer?.(request, response, there ? fs.readFileSync(file) : null)) return;
    if (!there) return response.writeHead(404).end();
    const wrong = trouble?.(request) ?? false;
    if (typeof wrong === 'number') return response.writeHead(wrong).end();
    const bytes = fs.readFileSync(file);
    const etag = `"${bytes.length}-${fs.statSync(file).mtimeMs}"`;
    response.setHeader('ETag', etag);
    response.setHeader('Content-Type', TYPES[path.extname(file)] ?? 'application/octet-stream');
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(ranges ? range : '') ?? [];
    let body: Buffer = bytes;
    if (from !== undefined) {
      const end = Math.min(bytes.length, to ? Number(to) + 1 : bytes.length);
      body = bytes.subarray(Number(from), end);
      response.setHeader('Content-Range', `bytes ${from}-${end - 1}/${bytes.length}`);
      response.statusCode = 206;
    }
    response.setHeader('Content-Length', body.length);
    if (request.method === 'HEAD') return response.end();
    if (!wrong) return response.end(body);
    response.write(body.subarray(0, body.length >> 1));
    setTimeout(() => response.destroy(), 20);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    close: () =>
      new Promise((done) => {
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
}

/** Opens a page whose errors fail the test. */
export async function openPage(browser: Pick<Browser, 'newPage'>, url: string, told: string[] = []): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000); // half a minute is little on a busy machine
  page.on('console', (message) => told.push(message.text()));
  page.on('pageerror', (error) => told.push(String(error)));
  // what tsx puts around functions
  await page.addInitScript('globalThis.__name = (f) => f');
  await page.goto(url);
  return page;
}

/** describe() with a browser; where there is none, one line says so and nothing of the suite runs, its hooks neither. */
export function inChromium(title: string, args: readonly string[], suite: (browser: () => Browser) => void): void {
  const executable = findChromium();
  if (executable === null) {
    const missing = 'there is no Chromium (apt-get install chromium, or CHROMIUM=FILE)';
    describe(title, () => {
      before(() => void process.stderr.write(`${title}: skipped, since ${missing}\n`));
      it.skip(missing);
    });
    return;
  }
  describe(title, function () {
    this.timeout(300_000);
    let browser: Browser;
    before(async () => {
      browser = await startChromium(executable, args);
    });
    after(() => browser?.close());
    suite(() => browser);
  });
}

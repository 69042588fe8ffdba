// `npm run demo:browser`: puts examples/browser into dist/demo, a folder that any server can serve, and serves it on this machine.
// `--build` only makes the folder; `--port N` chooses the port.
import { build } from 'esbuild';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWeb } from './build_web.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const page = path.join(root, 'examples/browser');

/** Builds the page into a folder. */
export async function buildDemo(outdir = path.join(root, 'dist/demo')) {
  fs.rmSync(outdir, { recursive: true, force: true });
  fs.mkdirSync(outdir, { recursive: true });
  const web = path.join(outdir, 'web');
  await buildWeb(web);
  await build({
    entryPoints: [path.join(page, 'main.js')],
    outdir,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    logLevel: 'error',
    nodePaths: [path.join(root, 'node_modules')], // wherever the folder is
    alias: { 'tfjs-mamba2/worker': path.join(web, 'worker.js') },
  });
  for (const name of fs.readdirSync(web))
    if (name === 'worker_script.js' || name.endsWith('.wasm'))
      fs.renameSync(path.join(web, name), path.join(outdir, name));
  fs.rmSync(web, { recursive: true });
  for (const name of ['index.html', 'offline.js']) fs.copyFileSync(path.join(page, name), path.join(outdir, name));
  fs.cpSync(path.join(root, 'models/tiny-books-mamba2'), path.join(outdir, 'models/tiny-books-mamba2'), {
    recursive: true,
  });
  return outdir;
}

const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
};

/** Serves a folder to this machine, with ranges, and isolated so that WebAssembly may have threads. */
export function serveFolder(folder, port) {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const file = path.join(
      folder,
      path.normalize(decodeURIComponent(pathname.endsWith('/') ? `${pathname}index.html` : pathname)),
    );
    const stat = file.startsWith(folder) ? fs.statSync(file, { throwIfNoEntry: false }) : undefined;
    if (!stat?.isFile()) return response.writeHead(404).end();
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    const begin = Number(from ?? 0);
    const end = Math.min(stat.size - 1, to ? Number(to) : stat.size - 1);
    response.writeHead(from === undefined ? 200 : 206, {
      'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      'Content-Length': end - begin + 1,
      'Accept-Ranges': 'bytes',
      ETag: `"${stat.size}-${stat.mtimeMs}"`,
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Embedder-Policy': 'require-corp',
      ...(from !== undefined && { 'Content-Range': `bytes ${begin}-${end}/${stat.size}` }),
    });
    if (request.method === 'HEAD') return response.end();
    fs.createReadStream(file, { start: begin, end }).pipe(response);
  });
  return new Promise((done) => server.listen(port, '127.0.0.1', () => done(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = await buildDemo();
  console.log(`The page is in ${path.relative(process.cwd(), folder)}.`);
  if (!process.argv.includes('--build')) {
    const at = process.argv.indexOf('--port');
    const server = await serveFolder(folder, at < 0 ? 8080 : Number(process.argv[at + 1]));
    console.log(`Open http://localhost:${server.address().port}/ (Ctrl-C ends it).`);
  }
}

/** `/`: a page to try the model in. One file, which asks nothing of other servers. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { FastifyInstance } from 'fastify';
import { packageRoot } from '../../base/package_files.js';

const FILE = path.join('page', 'index.html');

export async function pageRoutes(app: FastifyInstance): Promise<void> {
  const root = packageRoot();
  const html = root === null ? null : await fs.promises.readFile(path.join(root, FILE), 'utf8').catch(() => null);
  if (html === null) return; // a bundle has no such file near it
  // its own script and style by their hashes, requests to this server alone, and no frame of another page around it
  const hashes = (tag: string): string =>
    [...html.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))]
      .map(([, text]) => `'sha256-${createHash('sha256').update(text!).digest('base64')}'`)
      .join(' ');
  const policy = [
    "default-src 'none'",
    `script-src ${hashes('script')}`,
    `style-src ${hashes('style')}`,
    "connect-src 'self'",
    'img-src data:',
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
  app.get('/', { schema: { hide: true } }, (_, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .headers({
        'content-security-policy': policy,
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-cache',
      })
      .send(html),
  );
}

/** Who may ask: keys, and names under which the server may be called. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';
import { ApiError } from './errors.js';
import type { Settings } from './options.js';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Paths that need no key: probes, numbers, and the documentation and page, which hold nothing of anybody. */
const OPEN = new Set(['/', '/health', '/ready', '/metrics', '/openapi.json']);

/** Checks the key of a request, in a time that says nothing about how much of it is right. */
export class Keys {
  private readonly digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.digests = keys.map(digest);
  }

  /** @throws ApiError 401 */
  check({ headers, routeOptions }: FastifyRequest): void {
    if (this.digests.length === 0 || OPEN.has(routeOptions.url ?? '')) return;
    const given = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
    const hashed = digest(given ?? '');
    // all of them are compared, whichever fits
    let fits = 0;
    for (const each of this.digests) fits |= Number(timingSafeEqual(each, hashed));
    if (given !== undefined && fits) return;
    throw new ApiError(
      given === undefined
        ? 'A key is needed: send the header Authorization: Bearer KEY.'
        : 'The key is not one of this server’s.',
      { status: 401, code: 'invalid_api_key', retry: false },
    );
  }
}

const LOCAL = new Set(['localhost', '127.0.0.1', '::1']);

/** Whether an address is reached from this machine alone. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/**
 * A server without keys on a loopback address trusts whoever reaches it, and a page of any site may do so from the browser of whoever
 * sits there, by a name that leads here. So such a name is refused.
 */
export function hostCheck({ host, api_keys = [], allowed_hosts = [] }: Settings): (request: FastifyRequest) => void {
  if (api_keys.length > 0 || !isLoopback(host)) return () => undefined;
  const names = new Set([...LOCAL, host, ...allowed_hosts].map((name) => name.toLowerCase()));
  return ({ headers }) => {
    const name = (headers.host ?? '')
      .toLowerCase()
      .replace(/:\d*$/, '')
      .replace(/^\[(.*)\]$/, '$1');
    if (names.has(name) || (isIP(name) !== 0 && isLoopback(name))) return;
    throw new ApiError(
      `This server is called by the name '${name.slice(0, 80)}', which it does not know. Start it with that name allowed (--allowed-host), or with a key.`,
      { status: 403, code: 'unknown_host', retry: false },
    );
  };
}

/**
 * Requests to the hub: the token is shown to the hub's own host alone, proxies are those of the environment, and no answer is
 * waited for without end.
 */
import { CheckpointError } from '../base/errors.js';

/** What a listing may take at most: pages, and seconds an answer. */
const MOST_PAGES = 10_000;

/** Seconds without an answer, or without a byte of a file, before a request is given up; HF_HUB_DOWNLOAD_TIMEOUT sets them. */
export function hubTimeout(env: NodeJS.ProcessEnv = process.env): number {
  const seconds = Number(env.HF_HUB_DOWNLOAD_TIMEOUT);
  return seconds > 0 ? seconds : 30;
}

/** The proxy variables that are set, as curl and Python read them. */
function proxyVariables(env: NodeJS.ProcessEnv): string[] {
  return ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY'].filter((name) => env[name]);
}

/** What a message about the network says of the proxies in use, without what they may hold of a password. */
export function throughProxy(env: NodeJS.ProcessEnv = process.env): string {
  const [name] = proxyVariables(env);
  return name === undefined
    ? ''
    : ` through the proxy ${env[name]!.replace(/\/\/[^@/]*@/, '//')} (${name}; NO_PROXY leaves hosts out)`;
}

let proxied: { key: string; fetch: typeof fetch } | null = null;

/**
 * fetch() through the proxies of HTTPS_PROXY and HTTP_PROXY, but for the hosts of NO_PROXY; Node's own where none is set.
 * @throws CheckpointError when one is set and the package undici is not installed
 */
export async function environmentFetch(env: NodeJS.ProcessEnv = process.env): Promise<typeof fetch> {
  const names = proxyVariables(env);
  if (names.length === 0) return fetch;
  const key = JSON.stringify([...names, 'no_proxy', 'NO_PROXY'].map((name) => env[name]));
  if (proxied?.key === key) return proxied.fetch;
  const undici = await import('undici').catch((error: unknown) => {
    throw new CheckpointError(
      `${names.join(' and ')} name${names.length > 1 ? '' : 's'} a proxy, and requests through one are made with the package undici, which is not installed. Run \`npm install undici\`, or add the host to NO_PROXY.`,
      { proxies: names },
      { cause: error },
    );
  });
  const dispatcher = new undici.EnvHttpProxyAgent();
  const through = (input: unknown, init?: object): unknown =>
    undici.fetch(input as Parameters<typeof undici.fetch>[0], { ...init, dispatcher });
  proxied = { key, fetch: through as typeof fetch };
  return proxied.fetch;
}

/** Where requests go, and with what. */
export interface HubAccess {
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly signal?: AbortSignal;
}

/** Whether an address is the hub's own: the token is for no other. */
function isHubAddress(url: string, endpoint: string): boolean {
  try {
    return new URL(url).origin === new URL(endpoint).origin;
  } catch {
    return false;
  }
}

/** The header with the token, for an address of the hub's own host; none for another. */
export function authorization(url: string, { endpoint, token }: HubAccess): Record<string, string> {
  return token !== undefined && isHubAddress(url, endpoint) ? { Authorization: `Bearer ${token}` } : {};
}

/** A signal that also fires after so many seconds. */
export function within(seconds: number, signal?: AbortSignal): { signal: AbortSignal; done(): void } {
  const controller = new AbortController();
  const late = (): void => controller.abort(new DOMException(`no answer within ${seconds} s`, 'TimeoutError'));
  const timer = setTimeout(late, seconds * 1000);
  const abort = (): void => controller.abort(signal?.reason);
  if (signal?.aborted) abort();
  else signal?.addEventListener('abort', abort, { once: true });
  const done = (): void => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  };
  return { signal: controller.signal, done };
}

/**
 * A fetch for the hub's client, which follows the pages of a listing wherever their links lead: the token stays with the hub's
 * host, whole answers come within a limit of time, and pages that lead back to themselves end.
 */
export function apiFetch(access: HubAccess): typeof fetch {
  const asked = new Set<string>();
  return async (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    if (asked.has(url) || asked.size >= MOST_PAGES) {
      throw new CheckpointError(
        `${access.endpoint} lists its files in pages that ${asked.has(url) ? `lead back to ${url}` : 'do not end'}.`,
        { url },
      );
    }
    asked.add(url);
    const request = await environmentFetch();
    const limit = within(hubTimeout(), access.signal);
    try {
      const headers = new Headers(init?.headers);
      headers.delete('Authorization');
      for (const [name, value] of Object.entries(authorization(url, access))) headers.set(name, value);
      const response = await request(url, { ...init, headers, signal: limit.signal });
      const body = await response.text();
      if (response.ok) checkJson(body, url);
      const answer = new Response(response.status === 204 ? null : body, {
        status: response.status,
        statusText: response.statusText,
        headers: response.headers,
      });
      Object.defineProperty(answer, 'url', { value: url });
      return answer;
    } finally {
      limit.done();
    }
  };
}

function checkJson(body: string, url: string): void {
  try {
    JSON.parse(body);
  } catch (cause) {
    throw new CheckpointError(
      `${url} answered with something that is no JSON. Is a proxy or a sign-in page in between?`,
      { url, start: body.slice(0, 100) },
      { cause },
    );
  }
}

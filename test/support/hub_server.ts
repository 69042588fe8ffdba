/** A hub on loopback: the three addresses that a download uses, and the ways in which they fail. */
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { createHash } from 'node:crypto';

export const COMMIT_A = 'a'.repeat(40);
export const COMMIT_B = 'b'.repeat(40);

/** What a request was: for assertions. */
export interface Seen {
  method: string;
  url: string;
  range?: string;
  authorization?: string;
}

export class HubServer {
  /** commits by branch or tag */
  refs: Record<string, string> = { main: COMMIT_A };
  /** files by path; those of at least `largeFrom` bytes are listed as large (SHA-256) */
  files: Record<string, Uint8Array> = {};
  /** files of single commits, where they have others */
  at: Record<string, Record<string, Uint8Array>> = {};
  largeFrom = 1000;
  /** token that must be shown; none by default */
  token?: string;
  /** status for every request of the API */
  apiStatus?: number;
  /** cut the next answers of this file after so many bytes, each once */
  cuts: Record<string, number[]> = {};
  /** bytes sent in place of a file's own */
  wrong: Record<string, Uint8Array> = {};
  /** statuses given before the file itself, each once */
  statuses: Record<string, number[]> = {};
  ignoreRange = false;
  /** where the list of files goes on: its answer's Link header */
  next?: string;
  /** what the API answers with, in place of JSON */
  notJson?: string;
  /** files, or 'api', that are never answered, or stop in the middle */
  stalls: Record<string, 'answer' | 'body'> = {};
  /** redirect large files to this address */
  cdn?: string;
  readonly seen: Seen[] = [];
  private readonly server = http.createServer((request, response) => this.answer(request, response));

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return this.endpoint;
  }
  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }
  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
  /** Requests for a file's contents. */
  downloads(name: string): Seen[] {
    return this.seen.filter(({ url }) => url.endsWith(`/${name}`) && url.includes('/resolve/'));
  }

  private checksum(bytes: Uint8Array): string {
    if (bytes.byteLength >= this.largeFrom) return createHash('sha256').update(bytes).digest('hex');
    return createHash('sha1').update(`blob ${bytes.byteLength}\0`).update(bytes).digest('hex');
  }

  private answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { range, authorization } = request.headers;
    const url = decodeURIComponent((request.url ?? '').split('?')[0]!);
    this.seen.push({ method: request.method ?? '', url, range, authorization });
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
    };
    const api = /^\/api\/(?:models|datasets)\/org\/model\/(revision|tree)\/(.+)$/.exec(url);
    const file = /^\/(?:(?:datasets\/)?org\/model\/resolve\/([0-9a-f]{40})|cdn)\/(.+)$/.exec(url);
    if (this.token && !url.startsWith('/cdn/') && authorization !== `Bearer ${this.token}`)
      return json(401, { error: 'Invalid credentials' });
    if (api && this.stalls['api']) return;
    if (api && this.notJson !== undefined) return void response.writeHead(200).end(this.notJson);
    if (api && this.apiStatus) return json(this.apiStatus, { error: 'as told' });
    if (api?.[1] === 'revision') {
      const sha = Object.values(this.refs).includes(api[2]!) ? api[2] : this.refs[api[2]!];
      return sha
        ? json(200, { _id: '1', id: 'org/model', sha, lastModified: 0 })
        : json(404, { error: 'Invalid rev id' });
    }
    if (api?.[1] === 'tree' && this.next) response.setHeader('Link', `<${this.next}>; rel="next"`);
    if (api?.[1] === 'tree')
      return json(
        200,
        Object.entries(this.at[api[2]!] ?? this.files).map(([path, bytes]) => {
          const [size, oid] = [bytes.byteLength, this.checksum(bytes)];
          const large = size >= this.largeFrom;
          return large
            ? { type: 'file', path, size, oid: '0'.repeat(40), lfs: { oid, size, pointerSize: 130 } }
            : { type: 'file', path, size, oid };
        }),
      );
    const bytes = file && (this.at[file[1] ?? ''] ?? this.files)[file[2]!];
    if (bytes) return this.send(file[2]!, bytes, url, range, response);
    json(404, { error: 'Repository not found' });
  }

  private send(
    name: string,
    own: Uint8Array,
    url: string,
    range: string | undefined,
    response: http.ServerResponse,
  ): void {
    const status = this.statuses[name]?.shift();
    if (status) return void response.writeHead(status).end();
    if (this.cdn && !url.startsWith('/cdn/') && own.byteLength >= this.largeFrom)
      return void response.writeHead(302, { Location: `${this.cdn}/cdn/${name}` }).end();
    const stall = this.stalls[name];
    delete this.stalls[name];
    if (stall === 'answer') return;
    const bytes = this.wrong[name] ?? own;
    const from = this.ignoreRange ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    const part = bytes.subarray(from);
    response.writeHead(from > 0 ? 206 : 200, { 'Content-Length': part.byteLength });
    if (stall === 'body') return void response.write(part.subarray(0, 10));
    const cut = this.cuts[name]?.shift();
    if (cut === undefined) return void response.end(part);
    response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 150));
  }
}

/** Servers that answer Range requests wrongly, half, late or with something else: a slower way or a clear error, and nothing corrupt. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { gzipSync } from 'node:zlib';
import { BLOCK, builtPackage, firstOf, MODEL, ModelPage, rangeOf, send, SIZE, TEXT, WEIGHTS } from '../support/model_page.js'; // prettier-ignore
import { inChromium, serve, type ServerOptions, type TestServer } from '../support/pages.js';

type Answer = NonNullable<ServerOptions['answer']>;

/** An answer for the weights alone. */
const ofWeights =
  (answer: (...args: [Parameters<Answer>[0], Parameters<Answer>[1], Buffer]) => boolean): Answer =>
  (request, response, bytes) =>
    request.url === WEIGHTS && bytes !== null && (answer(request, response, bytes) || part([request, response, bytes]));

/** A right part of a file, with what is to be different about it. */
function part(
  [request, response, bytes]: [Parameters<Answer>[0], Parameters<Answer>[1], Buffer],
  { range = rangeOf(request, bytes.length), headers = {}, body = bytes.subarray(...range) } = {}, // prettier-ignore
): true {
  const [from, to] = range;
  const whole = firstOf(request) === null;
  const about: Record<string, string> = whole ? {} : { 'Content-Range': `bytes ${from}-${to - 1}/${bytes.length}` };
  return send(response, whole ? 200 : 206, { 'Content-Length': body.length, ...about, ...headers }, body);
}

const PAGE = '<!doctype html><title>Log in</title>';

inChromium('an odd server', [], (browser) => {
  const built = builtPackage();
  let at: ModelPage | undefined;
  const others: TestServer[] = [];
  afterEach(async () => {
    await at?.close();
    at = undefined;
    for (const other of others.splice(0)) await other.close();
  });
  const open = async (answer?: Answer, options: Partial<ServerOptions> = {}): Promise<ModelPage> => {
    at = await ModelPage.open(browser(), built.folder, { ...(answer && { answer }), ...options });
    return at;
  };

  /** Ways of answering that are odd or wrong and still have the file in them. @param most times that the weights are asked for at most */
  const slower: readonly [what: string, most: number, answer: Answer][] = [
    ['does not say which part it sends', 2, ofWeights((request, response, bytes) => firstOf(request) !== null && send(response, 206, {}, bytes.subarray(...rangeOf(request, bytes.length))))], // prettier-ignore
    ['does not say how long the file is', 2, ofWeights((...all) => firstOf(all[0]) !== null && part(all, { headers: { 'Content-Range': `bytes 0-${BLOCK - 1}/*` } }))], // prettier-ignore
    ['always sends the first part', 6, ofWeights((...all) => (firstOf(all[0]) ?? 0) > 0 && part(all, { range: [0, BLOCK] }))], // prettier-ignore
    ['sends one part by range, and then the whole', 2, ofWeights((request, response, bytes) => firstOf(request) !== 0 && send(response, 200, { 'Content-Length': bytes.length }, bytes))], // prettier-ignore
    ['refuses every range (416)', 2, ofWeights((request, response, bytes) => firstOf(request) === null ? send(response, 200, { 'Content-Length': bytes.length }, bytes) : send(response, 416, {}))], // prettier-ignore
    ['refuses ranges but the first (416)', 3, ofWeights((...all) => (firstOf(all[0]) ?? 0) > 0 ? send(all[1], 416, {}) : part(all))], // prettier-ignore
    ['sends less than was asked for, and says so', 12, ofWeights((...all) => { const [from, to] = rangeOf(all[0], all[2].length); return firstOf(all[0]) !== null && part(all, { range: [from, Math.min(to, from + 2 ** 20)] }); })], // prettier-ignore
    ['sends more than was asked for, and says so', 3, ofWeights((...all) => firstOf(all[0]) !== null && part(all, { range: [firstOf(all[0])!, all[2].length] }))], // prettier-ignore
    ['sends half of what it says', 5, ofWeights((...all) => { const [from, to] = rangeOf(all[0], all[2].length); return firstOf(all[0]) !== null && part(all, { body: all[2].subarray(from, (from + to) >> 1) }); })], // prettier-ignore
    ['compresses parts', 2, ofWeights((...all) => { const body = gzipSync(all[2].subarray(...rangeOf(all[0], all[2].length)), { level: 1 }); return part(all, { body, headers: { 'Content-Encoding': 'gzip' } }); })], // prettier-ignore
    ['compresses the whole', 2, ofWeights((_, response, bytes) => { const body = gzipSync(bytes, { level: 1 }); return send(response, 200, { 'Content-Encoding': 'gzip', 'Content-Length': body.length }, body); })], // prettier-ignore
    ['sends the whole and no length', 1, ofWeights((_, response, bytes) => send(response, 200, {}, bytes))],
    ['has neither an ETag nor a time', 1, ofWeights((_, response, bytes) => { response.sendDate = false; response.writeHead(200, { 'Content-Length': bytes.length }); response.end(bytes); return true; })], // prettier-ignore
  ];
  for (const [what, most, answer] of slower)
    it(`that ${what} is read a slower way, and kept`, async () => {
      await open(answer);
      expect(await at!.write()).to.equal(TEXT);
      expect(at!.fetched).to.have.length.within(1, most);
      await at!.reload();
      expect(await at!.write()).to.equal(TEXT);
      expect(at!.fetched).to.deep.equal([]);
    });

  it('that breaks each answer off once is asked again', async () => {
    const broken = new Set<string>();
    await open(undefined, {
      trouble: ({ url, headers, method }) => {
        const key = `${url} ${headers.range}`;
        if (method === 'HEAD' || url !== WEIGHTS || broken.has(key)) return false;
        broken.add(key);
        return true;
      },
    });
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched).to.have.length(6);
  });

  it('that declares more bytes than it sends fails with what arrived, and works once it is mended', async () => {
    let wrong = true;
    await open(ofWeights((_, response, bytes) => {
      send(response, 200, { 'Content-Length': bytes.length + (wrong ? 100 : 0) }, bytes);
      if (wrong) setTimeout(() => response.destroy(), 300);
      return true;
    })); // prettier-ignore
    expect(await at!.write()).to.match(
      /^CheckpointError: .*model\.safetensors: bytes from \d+ cannot be fetched \(.*load again/,
    );
    wrong = false;
    expect(await at!.write()).to.equal(TEXT);
  });

  it('whose answer ends too early without a length is found out, and asked anew the next time', async () => {
    let wrong = true;
    await open(ofWeights((_, response, bytes) => {
      // ended by the connection's end, as HTTP/1.0 has it: nothing tells that more was to come
      response.useChunkedEncodingByDefault = false;
      response.shouldKeepAlive = false;
      return send(response, 200, { Connection: 'close' }, wrong ? bytes.subarray(0, SIZE / 2) : bytes);
    })); // prettier-ignore
    expect(await at!.write()).to.match(
      /^CheckpointError: .*model\.safetensors: .*(past the end of the file|bytes of data)/,
    );
    wrong = false;
    expect(await at!.write()).to.equal(TEXT);
  });

  for (const [what, damage] of [
    ['whose header is longer than the file', (bytes: Buffer) => bytes.writeBigUInt64LE(BigInt(bytes.length))],
    ['whose offsets lie', (bytes: Buffer) => bytes.write('"data_offsets":[7,', bytes.indexOf('"data_offsets":[0,'))],
  ] as const)
    it(`with a file ${what} is an error, and a whole file under the same ETag is read the next time`, async () => {
      let wrong = true;
      await open(ofWeights((...all) => {
        const bytes = Buffer.from(all[2]);
        if (wrong) damage(bytes);
        return part([all[0], all[1], bytes]);
      })); // prettier-ignore
      expect(await at!.write()).to.match(
        /^CheckpointError: .*model\.safetensors: (its safetensors header would have|tensor )/,
      );
      wrong = false;
      expect(await at!.write()).to.equal(TEXT);
    });

  it('whose file is replaced in the middle of its download is an error, and the new one is read at once', async () => {
    let version = 1;
    await open(ofWeights((...all) => {
      if ((firstOf(all[0]) ?? 0) === BLOCK) version = 2;
      return part(all, { headers: { ETag: `"${version}"` } });
    })); // prettier-ignore
    expect(await at!.write()).to.match(
      /^CheckpointError: .*model\.safetensors was changed while it was read\. Load the model again/,
    );
    expect(await at!.write()).to.equal(TEXT);
    const names = await at!.page.evaluate(async () =>
      (await (await caches.open('tfjs-mamba2')).keys()).map(({ url }) => decodeURIComponent(url)),
    );
    expect(names.filter((name) => name.includes('model.safetensors "1"'))).to.deep.equal([]);
    expect(names.filter((name) => name.includes('model.safetensors "2"'))).to.have.length(3);
  });

  it('without versions whose file gets another size in the middle is an error as well', async () => {
    await open(ofWeights((...all) => {
      const [from, to] = rangeOf(all[0], all[2].length);
      const total = from === 0 ? all[2].length : all[2].length + 8;
      all[1].writeHead(206, { 'Content-Range': `bytes ${from}-${to - 1}/${total}` });
      all[1].end(all[2].subarray(from, to));
      return true;
    })); // prettier-ignore
    expect(await at!.write()).to.match(/^CheckpointError: .*was changed while it was read/);
  });

  it('with weak ETags, or others for compressed answers, is not asked for the same bytes again', async () => {
    for (const tag of ['W/"one"', '"one-gzip"', 'W/"one;gzip"']) {
      await open(ofWeights((...all) => part(all, { headers: { ETag: all[0].method === 'HEAD' ? tag : 'W/"one"' } })));
      expect(await at!.write()).to.equal(TEXT);
      await at!.reload();
      expect(await at!.write()).to.equal(TEXT);
      expect(at!.fetched, tag).to.deep.equal([]);
      await at!.close();
    }
    at = undefined;
  });

  /** A server that redirects to one of another origin, as the hub does. */
  async function redirected(headers: Record<string, string>, compress = false): Promise<void> {
    const other = await serve({
      folders: { models: 'models' },
      answer: (request, response, bytes) => {
        for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
        if (!compress || bytes === null || request.headers.range) return false;
        const body = gzipSync(bytes, { level: 1 });
        return send(response, 200, { 'Content-Encoding': 'gzip', 'Content-Length': body.length }, body);
      },
    });
    others.push(other);
    await open((request, response) => {
      if (!request.url!.startsWith('/models/')) return false;
      response.writeHead(302, { Location: `${other.url}${request.url}` }).end();
      return true;
    });
  }

  for (const [what, headers, answers, compress] of [
    ['shows all', { 'Access-Control-Expose-Headers': 'Content-Range, ETag' }, 3, false],
    ['does not show Content-Range', {}, 2, false],
    ['does not show that it compresses', {}, 2, true],
  ] as const)
    it(`that redirects to a host which ${what} is read`, async () => {
      await redirected({ 'Access-Control-Allow-Origin': '*', ...headers }, compress);
      expect(await at!.write()).to.equal(TEXT);
      expect(others[0]!.requests.filter((each) => /^GET.*model\.safetensors/.test(each))).to.have.length(answers);
      await at!.reload();
      others[0]!.requests.length = 0;
      expect(await at!.write()).to.equal(TEXT);
      const again = others[0]!.requests.filter((each) => /^GET.*model\.safetensors/.test(each));
      expect(again).to.deep.equal([]);
    });

  it('that redirects to a host which lets no page read is an error that names the header', async () => {
    await redirected({});
    expect(await at!.write()).to.match(/Error: .*tokenizer.* cannot be reached .*Access-Control-Allow-Origin/);
  });

  for (const status of [429, 503])
    it(`that is busy (${status}) is waited for as long as it asks`, async () => {
      const times: number[] = [];
      await open(ofWeights((...all) => {
        times.push(Date.now());
        return times.length === 1 || times.length === 3 ? send(all[1], status, { 'Retry-After': '1' }) : part(all);
      })); // prettier-ignore
      expect(await at!.write()).to.equal(TEXT);
      expect(times[1]! - times[0]!).to.be.at.least(990);
      expect(times[3]! - times[2]!).to.be.at.least(990);
    });

  it('that is busy for an hour, or always, is an error that says so, and no other file is taken in its place', async () => {
    let asked = '3600';
    await open(ofWeights((_, response) => send(response, 503, { 'Retry-After': asked })));
    expect(await at!.write()).to.match(
      /^CheckpointError: .*model\.safetensors: the server answers 503 .*Load again in 3600 s, as it asks/,
    );
    asked = 'soon';
    expect(await at!.write()).to.match(
      /^CheckpointError: .*model\.safetensors: the server answers 503 .*, 4 times\. Load again later/,
    );
    expect(at!.server.requests.filter((each) => /pytorch_model|consolidated/.test(each))).to.deep.equal([]);
  });

  it('that is busy while a kept file is asked about has the kept one used', async () => {
    let busy = false;
    await open(ofWeights((_, response) => busy && send(response, 503, {})));
    expect(await at!.write()).to.equal(TEXT);
    busy = true;
    await at!.reload();
    expect(await at!.write()).to.equal(TEXT);
  });

  for (const [what, answer] of [
    ['refuses what it does not have (403), as buckets do', (response) => send(response, 403, {})],
    ['has a page for whatever it does not have', (response) => send(response, 200, { 'Content-Type': 'text/html' }, PAGE)], // prettier-ignore
  ] satisfies [string, (response: Parameters<Answer>[1]) => boolean][])
    it(`that ${what} is read, and its optional files are not there`, async () => {
      await open((_, response, bytes) => bytes === null && answer(response));
      expect(await at!.write()).to.equal(TEXT);
      expect(await at!.write('/models/none/')).to.match(
        /^TokenizerError: There is no tokenizer\.json in .*\/none\/.* (answers 403|a page of HTML)/,
      );
    });

  for (const file of ['config.json', 'tokenizer.json', 'model.safetensors'])
    it(`that has a page to log in for ${file} is an error that says so, and what is kept is used`, async () => {
      let out = true;
      await open((request, response) => out && request.url === `${MODEL}${file}` && send(response, 200, { 'Content-Type': 'text/html; charset=utf-8' }, PAGE)); // prettier-ignore
      expect(await at!.write()).to.match(new RegExp(`Error: .*Of http.*${file}, the server sent a page of HTML and not the file: a page to log in`)); // prettier-ignore
      out = false;
      expect(await at!.write()).to.equal(TEXT);
      out = true;
      await at!.reload();
      expect(await at!.write()).to.equal(TEXT);
    });

  it('that has a page under the name of JSON is an error with the file in it', async () => {
    await open((request, response) => request.url === `${MODEL}config.json` && send(response, 200, { 'Content-Type': 'application/json' }, PAGE)); // prettier-ignore
    expect(await at!.write()).to.match(/^(CheckpointError|ConfigError): .*config\.json.* not valid JSON/);
  });

  it('that wants to know who asks (401) is an error that names the option', async () => {
    await open(ofWeights((_, response) => send(response, 401, {})));
    expect(await at!.write()).to.match(/^CheckpointError: .*model\.safetensors.* 401 .*\(option token\)/);
  });

  it('that has other files in place of those of before is asked for them in the same page, too', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-other-'));
    const config = path.join(dir, 'config.json');
    fs.cpSync('models/tiny-books-mamba2', dir, { recursive: true });
    await open(undefined, { folders: { web: built.folder, models: path.dirname(dir) } });
    const name = `/models/${path.basename(dir)}/`;
    expect(await at!.write(name)).to.equal(TEXT);
    fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace('"vocab_size": ', '"vocab_size": 1'));
    await at!.page.waitForTimeout(2500); // as long as files that were just read are not asked about again
    expect(await at!.write(name)).to.match(/^(CheckpointError|ConfigError): /);
    fs.rmSync(dir, { recursive: true });
  });
});

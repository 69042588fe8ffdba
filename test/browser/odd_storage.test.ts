/** Pages without storage, or with too little or damaged; several tabs, reloads, stops and a network that comes and goes: nothing corrupt. */
import { expect } from 'chai';
import * as path from 'node:path';
import { build } from 'esbuild';
import { builtPackage, BLOCK, MODEL, ModelPage, send, SIZE, TEXT, WEIGHTS } from '../support/model_page.js';
import { inChromium, openPage, type ServerOptions } from '../support/pages.js';
import type * as Whole from '../../src/whole.js';
import type * as Entry from '../../src/worker.js';

declare const m: typeof Whole;
declare const w: typeof Entry;

/** Names of what a page keeps of the weights. */
const kept = (at: ModelPage): Promise<string[]> =>
  at.page.evaluate(async () => {
    const all = (await (await caches.open('tfjs-mamba2')).keys()).map(({ url }) => decodeURIComponent(url));
    return all.filter((name) => name.includes('model.safetensors "'));
  });

const FULL = `() => Promise.reject(new DOMException('full', 'QuotaExceededError'))`;

inChromium('storage of a page', ['--host-resolver-rules=MAP far.test 127.0.0.1'], (browser) => {
  const built = builtPackage();
  let at: ModelPage | undefined;
  afterEach(async () => {
    await at?.close();
    at = undefined;
  });
  const open = async (options: Partial<ServerOptions> = {}, host?: string): Promise<ModelPage> => {
    at = await ModelPage.open(browser(), built.folder, options, host);
    return at;
  };

  /** Loads the model, and gives what it warned of and what it writes. */
  const warned = (): Promise<{ warnings: string[]; ids: number[] }> =>
    at!.page.evaluate(async (model) => {
      const warnings: string[] = [];
      const lm = await m.AutoModelForCausalLM.from_pretrained(model, { on_warning: (line) => warnings.push(line) });
      const [ids] = await lm.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 4, do_sample: false });
      lm.dispose();
      return { warnings, ids: ids! };
    }, MODEL);

  it('that there is none of, in a page without https, is told, and the model works', async () => {
    await open();
    const { ids, warnings } = await warned();
    expect(warnings).to.deep.equal([]);
    await at!.close();
    await open({}, 'far.test');
    expect(await at!.page.evaluate('[globalThis.isSecureContext, typeof caches]')).to.deep.equal([false, 'undefined']);
    const far = await warned();
    expect(far.ids).to.deep.equal(ids);
    expect(far.warnings.filter((line) => line.includes('model.safetensors'))).to.have.length(1);
    expect(far.warnings.join()).to.match(/This page has no storage to keep model\.safetensors in \(it needs https or localhost.*next visit will fetch it again/); // prettier-ignore
    expect(await at!.write()).to.equal(TEXT);
  });

  it('that there is none of, in a frame of no origin, is told, and the model works', async () => {
    await open({
      answer: (_, response) => {
        response.setHeader('Access-Control-Allow-Origin', '*');
        return false;
      },
    });
    const text = await at!.page.evaluate(async (model) => {
      const frame = document.createElement('iframe');
      frame.sandbox.add('allow-scripts');
      const lib = new URL('/web/tfjs-mamba2.min.js', location.href).href;
      const name = new URL(model, location.href).href;
      frame.srcdoc = `<script type="module">
        const lines = [];
        try {
          const m = await import('${lib}');
          await m.clearDownloads();
          const write = await m.pipeline('text-generation', '${name}', { device: 'js', on_warning: (line) => lines.push(line) });
          const [out] = await write('Once upon a time', { max_new_tokens: 8, do_sample: false });
          parent.postMessage(out.generated_text + lines.join(), '*');
        } catch (error) { parent.postMessage(String(error), '*'); }
      </script>`;
      const told = new Promise<string>((done) => addEventListener('message', ({ data }) => done(data as string), { once: true })); // prettier-ignore
      document.body.append(frame);
      return told;
    }, MODEL);
    expect(text.slice(0, TEXT.length)).to.equal(TEXT);
    expect(text).to.match(/no storage to keep model\.safetensors/);
  });

  it('that refuses its caches alone is taken as private files', async () => {
    await open();
    await at!.page.evaluate(`CacheStorage.prototype.open = () => Promise.reject(new DOMException('no', 'SecurityError'))`); // prettier-ignore
    expect(await at!.write()).to.equal(TEXT);
    await at!.reload();
    await at!.page.evaluate(`CacheStorage.prototype.open = () => Promise.reject(new DOMException('no', 'SecurityError'))`); // prettier-ignore
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched).to.deep.equal([]);
  });

  it('that gets full in the middle of the weights keeps what there was room for', async () => {
    await open();
    await at!.page.evaluate(`{
      const put = Cache.prototype.put;
      let count = 0;
      Cache.prototype.put = function (request, response) {
        if (/model\\.safetensors%20%22/.test(request) && ++count > 1) return (${FULL})();
        return put.call(this, request, response);
      };
      FileSystemFileHandle.prototype.createWritable = ${FULL};
    }`);
    const { warnings } = await warned();
    expect(warnings).to.deep.equal([
      'The browser gives no room to keep model.safetensors: the next visit will fetch it again.',
    ]);
    expect(await kept(at!)).to.have.length(1);
    await at!.reload();
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched.map((each) => each.replace(/^.*bytes=/, ''))).to.deep.equal([
      `${BLOCK}-${2 * BLOCK - 1}`,
      `${2 * BLOCK}-${SIZE - 1}`,
    ]);
  });

  it('that gets full in the middle of a file from a server without ranges has the rest in memory', async () => {
    await open({ ranges: false });
    await at!.page.evaluate(`{
      const put = Cache.prototype.put;
      let count = 0;
      Cache.prototype.put = function (request, response) {
        if (/model\\.safetensors%20%22/.test(request) && ++count > 1) return (${FULL})();
        return put.call(this, request, response);
      };
      FileSystemFileHandle.prototype.createWritable = ${FULL};
    }`);
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched).to.have.length(1);
    await at!.reload();
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched).to.have.length(1);
  });

  for (const ranges of [true, false])
    it(`that lost a part of a file has it fetched (ranges: ${ranges})`, async () => {
      await open({ ranges });
      expect(await at!.write()).to.equal(TEXT);
      await at!.page.evaluate(async () => {
        const cache = await caches.open('tfjs-mamba2');
        for (const request of await cache.keys())
          if (/model\.safetensors "/.test(decodeURIComponent(request.url)) && /20[12]$/.test(request.url)) await cache.delete(request); // prettier-ignore
      });
      expect(await kept(at!)).to.have.length(1);
      await at!.reload();
      expect(await at!.write()).to.equal(TEXT);
      expect(at!.fetched).to.have.length(ranges ? 2 : 1);
      expect(await kept(at!)).to.have.length(3);
    });

  for (const [what, damage] of [
    ['other bytes', (bytes: Uint8Array) => bytes.fill(7, 1000, 3000)],
    ['one bit that is another', (bytes: Uint8Array) => bytes.set([bytes[2_000_000]! ^ 1], 2_000_000)],
    ['fewer bytes', (bytes: Uint8Array) => bytes.subarray(0, 1000)],
    ['no bytes', (bytes: Uint8Array) => bytes.subarray(0, 0)],
  ] as [string, (bytes: Uint8Array) => Uint8Array | void][])
    it(`that has ${what} for a part has it fetched anew`, async () => {
      await open();
      expect(await at!.write()).to.equal(TEXT);
      await at!.page.evaluate(
        async (source) => {
          const spoil = (0, eval)(source) as (bytes: Uint8Array) => Uint8Array<ArrayBuffer> | void;
          const cache = await caches.open('tfjs-mamba2');
          for (const request of await cache.keys()) {
            if (!/model\.safetensors "/.test(decodeURIComponent(request.url)) || !request.url.endsWith('201')) continue;
            const bytes = new Uint8Array(await (await cache.match(request))!.arrayBuffer());
            await cache.put(request, new Response(spoil(bytes) ?? bytes));
          }
        },
        `(${String(damage)})`,
      );
      await at!.reload();
      expect(await at!.write()).to.equal(TEXT);
      expect(at!.fetched.map((each) => each.replace(/^.*bytes=/, ''))).to.deep.equal([`${BLOCK}-${2 * BLOCK - 1}`]);
    });

  it('that names a file wrongly, or in a form of before, is not believed', async () => {
    await open();
    await at!.page.evaluate(async (url) => {
      const cache = await caches.open('tfjs-mamba2');
      const key = `https://tfjs-mamba2.invalid/${encodeURIComponent(`${new URL(url, location.href).href} about`)}`;
      await cache.put(key, new Response('{"size": 8, "version": ""}'));
    }, WEIGHTS);
    expect(await at!.write()).to.equal(TEXT);
  });

  it('of two tabs that load one model at once is right for both', async () => {
    const context = await browser().newContext();
    at = await ModelPage.open(context, built.folder);
    const second = new ModelPage(await openPage(context, at.server.url), at.server);
    await second.start();
    expect(await Promise.all([at.write(), second.write()])).to.deep.equal([TEXT, TEXT]);
    await at.reload();
    expect(await Promise.all([at.write(), second.write()])).to.deep.equal([TEXT, TEXT]);
    expect(at.fetched).to.deep.equal([]);
    // and one that forgets while the other reads
    await second.page.reload();
    await second.start();
    expect(await Promise.all([at.page.evaluate('m.clearDownloads()').then(() => TEXT), second.write()])).to.deep.equal([TEXT, TEXT]); // prettier-ignore
  });

  /** A server that holds back the second part of the weights until it is told to go on. */
  function holding(): { options: Partial<ServerOptions>; asked: Promise<void>; go(): void } {
    let [go, told] = [() => {}, () => {}];
    const gone = new Promise<void>((done) => (go = done));
    const asked = new Promise<void>((done) => (told = done));
    let held = false;
    const options: Partial<ServerOptions> = {
      answer: (request, response, bytes) => {
        if (request.url !== WEIGHTS || request.headers.range !== `bytes=${BLOCK}-${2 * BLOCK - 1}` || held)
          return false;
        held = true;
        told();
        response.on('error', () => undefined);
        void gone.then(() => response.destroy());
        return bytes !== null;
      },
    };
    return { options, asked, go };
  }

  it('has what had arrived when the page was loaded anew in the middle', async () => {
    const { options, asked, go } = holding();
    await open(options);
    const first = at!.write().catch(() => 'gone');
    await asked;
    await at!.reload();
    expect(await first).to.equal('gone');
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched.map((each) => each.replace(/^.*bytes=/, ''))).to.deep.equal([
      `${BLOCK}-${2 * BLOCK - 1}`,
      `${2 * BLOCK}-${SIZE - 1}`,
    ]);
    go();
  });

  it('has what had arrived when loading was stopped in the middle, by its reason, and another load goes on at once', async () => {
    const { options, asked, go } = holding();
    await open(options);
    const stopped = at!.page.evaluate(async (model) => {
      const stop = new AbortController();
      Object.assign(globalThis, { stop });
      const reason = await m
        .pipeline('text-generation', model, { signal: stop.signal, device: 'wasm' })
        .then(() => null, (error: unknown) => error); // prettier-ignore
      return reason === stop.signal.reason ? 'its reason' : String(reason);
    }, MODEL);
    await asked;
    await at!.page.evaluate(`stop.abort(new Error('the person left'))`);
    const again = at!.write();
    expect(await stopped).to.equal('its reason');
    expect(await again).to.equal(TEXT);
    go();
    const before = await at!.page.evaluate(
      (model) => m.AutoModelForCausalLM.from_pretrained(model, { signal: AbortSignal.abort() }).then(() => '', (error: Error) => error.name), // prettier-ignore
      MODEL,
    );
    expect(before).to.equal('AbortError');
  });

  it('has what had arrived when the network went away in the middle', async () => {
    const { options, asked, go } = holding();
    await open(options);
    const first = at!.write();
    await asked;
    await at!.page.context().setOffline(true);
    go();
    const broken =
      /^CheckpointError: .*bytes from (\d+) cannot be fetched \(.*What has arrived is kept: load again to go on/;
    const [, from] = broken.exec(await first) ?? [];
    // Chromium itself asks once more where a connection breaks before its answer
    expect(from).to.be.oneOf([String(BLOCK), String(2 * BLOCK)]);
    expect((broken.exec(await at!.write()) ?? [])[1]).to.equal(from);
    await at!.page.context().setOffline(false);
    at!.server.requests.length = 0;
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched[0]).to.include(`bytes=${from}-`);
  });

  it('has shards of which some are gone from it and from the server: an error that names the missing one', async () => {
    let gone = false;
    await open({
      answer: (request, response) => gone && /00002-of/.test(request.url!) && send(response, 404, {}),
    });
    const load = (): Promise<string> =>
      at!.page.evaluate(async () => {
        try {
          const lm = await m.AutoModelForCausalLM.from_pretrained('/fixtures/goldens/formats/sharded/');
          const [ids] = await lm.generate({ input_ids: [[5, 6]], max_new_tokens: 3, do_sample: false });
          return ids!.join();
        } catch (error) {
          return `${(error as Error).name}: ${(error as Error).message}`;
        }
      });
    const ids = await load();
    expect(ids).to.match(/^5,6,/);
    await at!.page.evaluate(async () => {
      const cache = await caches.open('tfjs-mamba2');
      for (const request of await cache.keys()) if (/00002-of/.test(request.url)) await cache.delete(request);
    });
    await at!.reload();
    expect(await load()).to.equal(ids);
    gone = true;
    await at!.reload();
    expect(await load()).to.match(/^CheckpointError: .*index\.json names model-00002-of.*not in the folder/);
  });

  it('is whole after a worker was ended while it loaded, whose call fails at once', async () => {
    const { options, asked, go } = holding();
    const file = path.join(built.folder, 'page.js');
    await build({ entryPoints: [path.join(built.folder, 'worker.js')], outfile: file, bundle: true, format: 'esm', logLevel: 'error', nodePaths: ['node_modules'] }); // prettier-ignore
    await open(options);
    await at!.page.evaluate(`import('/web/page.js').then((w) => { globalThis.w = w; })`);
    const loading = at!.page.evaluate(async (model) => {
      const remote = w.startWorker({ url: '/web/worker_script.js' });
      Object.assign(globalThis, { remote });
      return remote.pipeline('text-generation', model, {}).then(
        () => 'loaded',
        (error: Error) => error.message,
      );
    }, MODEL);
    await asked;
    await at!.page.evaluate('remote.terminate()');
    expect(await loading).to.match(/The worker was ended/);
    at!.server.requests.length = 0;
    expect(await at!.write()).to.equal(TEXT);
    expect(at!.fetched).to.have.length(2);
    go();
  });
});

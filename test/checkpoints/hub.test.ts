import { expect } from 'chai';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { HubOptions } from '../../src/checkpoints/index.js';
import { openCheckpoint, resolveModel } from '../../src/models/checkpoints.js';
import { locateModel } from '../../src/models/locate.js';
import { hubCacheRoot, hubToken, isOffline, isRepoId } from '../../src/checkpoints/hub_cache.js';
import { ArgumentError, CheckpointError, SaveError } from '../../src/base/errors.js';
import { AutoConfig, AutoModelForCausalLM, AutoTokenizer } from '../../src/models/auto/index.js';
import { pipeline } from '../../src/pipelines/index.js';
import { restoreEnvironment } from '../support/environment.js';
import { fixture } from '../support/goldens.js';
import { COMMIT_A, COMMIT_B, HubServer } from '../support/hub_server.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** The files of a folder. */
function folder(dir: string): Record<string, Uint8Array> {
  return Object.fromEntries(
    fs.readdirSync(dir).map((name) => [name, new Uint8Array(fs.readFileSync(path.join(dir, name)))]),
  );
}

describe('models of the hub', function () {
  this.timeout(20_000);
  let root = '';
  let hub: HubServer;
  let endpoint = '';
  let saved: NodeJS.ProcessEnv;
  beforeEach(async () => {
    // nothing of the user's own settings
    saved = { ...process.env };
    for (const key of Object.keys(process.env)) if (/^(HF_|HUGGING|TRANSFORMERS_)/.test(key)) delete process.env[key];
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'hub-'));
    process.env.HF_HOME = path.join(root, 'home');
    hub = new HubServer();
    endpoint = await hub.start();
    hub.files = {
      ...folder(fixture('goldens/formats/single')),
      'tokenizer.json': text('{}'),
      'README.md': text('# hi'),
    };
  });
  afterEach(async () => {
    await hub.stop();
    restoreEnvironment(saved);
    fs.rmSync(root, { recursive: true, force: true });
  });
  const resolve = (options: HubOptions = {}): Promise<string> =>
    resolveModel('org/model', { cache_dir: root, endpoint, retry_delay: 1, ...options });
  const failure = async (promise: Promise<unknown>): Promise<Error> => {
    const error = await promise.then(
      () => null,
      (e: unknown) => e,
    );
    expect(error).to.be.instanceOf(Error);
    return error as Error;
  };
  const repo = (): string => path.join(root, 'models--org--model');

  it('are fetched once, into the layout of huggingface_hub', async () => {
    const written: number[] = [];
    const told: string[] = [];
    const dir = await resolve({
      on_progress: ({ written: bytes, total }) => written.push(bytes / total),
      progress_callback: ({ status, file, progress }) =>
        (status !== 'progress' || progress === 100) && told.push(`${status} ${file}`),
    });
    // as transformers.js tells it
    for (const file of ['config.json', 'model.safetensors', 'tokenizer.json'])
      expect(told.filter((line) => line.endsWith(` ${file}`))).to.deep.equal(
        ['initiate', 'download', 'progress', 'done'].map((status) => `${status} ${file}`),
      );
    expect(dir).to.equal(path.join(repo(), 'snapshots', COMMIT_A));
    expect(fs.readdirSync(dir).sort()).to.deep.equal(['config.json', 'model.safetensors', 'tokenizer.json']);
    const link = fs.readlinkSync(path.join(dir, 'model.safetensors'));
    expect(link).to.match(/^\.\.[/\\]\.\.[/\\]blobs[/\\][0-9a-f]{64}$/);
    expect(fs.readFileSync(path.join(repo(), 'refs/main'), 'utf8')).to.equal(COMMIT_A);
    expect(written.at(-1)).to.equal(1);
    const source = await openCheckpoint(dir);
    await source.readFloat32('backbone.norm_f.weight');
    await source.close();
    await resolve();
    expect(hub.downloads('model.safetensors')).to.have.length(1);
    expect(fs.readdirSync(path.join(repo(), 'blobs')).filter((name) => name.includes('incomplete'))).to.deep.equal([]);
  });

  it('come with the shards that their index names', async () => {
    hub.files = folder(fixture('goldens/formats/sharded'));
    const source = await openCheckpoint(await resolve());
    expect(source.tensors.size).to.equal(20);
    await source.close();
    delete hub.files['model-00003-of-00005.safetensors'];
    hub.refs.main = COMMIT_B;
    expect((await failure(resolve())).message).to.match(
      /index\.json names model-00003-of-00005\.safetensors, which is not/,
    );
  });

  it('come as state-spaces publishes them', async () => {
    hub.files = folder(fixture('goldens/formats/state-spaces'));
    const source = await openCheckpoint(await resolve());
    expect(source.format).to.equal('state-spaces');
    await source.close();
  });

  it('share blobs between revisions, and follow a branch that moves', async () => {
    await resolve();
    hub.refs.main = COMMIT_B;
    hub.files['tokenizer.json'] = text('{"new": true}');
    const dir = await resolve();
    expect(dir).to.match(new RegExp(COMMIT_B));
    expect(fs.readFileSync(path.join(dir, 'tokenizer.json'), 'utf8')).to.equal('{"new": true}');
    expect(hub.downloads('model.safetensors')).to.have.length(1);
    const before = hub.seen.length;
    // a commit never changes: the network is not asked
    expect(await resolve({ revision: COMMIT_A })).to.match(new RegExp(COMMIT_A));
    expect(hub.seen).to.have.length(before);
  });

  it('go on where a cut connection ended', async () => {
    hub.cuts['model.safetensors'] = [30_000, 20_000];
    await resolve();
    const [first, ...more] = hub.downloads('model.safetensors').map(({ range }) => range);
    expect(first).to.equal(undefined);
    expect(more).to.have.length(2);
    // a connection that breaks may take bytes with it that were on their way, so at most what was sent is there
    const starts = more.map((range) => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0));
    expect(starts[1]).to.be.greaterThan(0).and.at.most(50_000);
    expect(starts[0]).to.be.at.most(30_000);
  });

  it('go on in the next run, and begin anew where the server ignores ranges', async () => {
    hub.cuts['model.safetensors'] = [10_000, 0, 0, 0, 0, 0];
    const error = await failure(resolve());
    expect(error).to.be.instanceOf(CheckpointError);
    expect(error.message).to.match(/model\.safetensors: the download .* failed 5 times.*run again/);
    hub.ignoreRange = true;
    hub.cuts = {};
    const dir = await resolve();
    expect(hub.downloads('model.safetensors').at(-1)!.range).to.match(/^bytes=[1-9]\d*-$/);
    const original = fs.readFileSync(path.join(fixture('goldens/formats/single'), 'model.safetensors'));
    expect(fs.readFileSync(path.join(dir, 'model.safetensors')).equals(original)).to.equal(true);
  });

  it('are fetched once by two who ask at the same time, also after one that was killed', async () => {
    const [a, b] = await Promise.all([resolve(), resolve()]);
    expect(a).to.equal(b);
    for (const name of ['config.json', 'model.safetensors']) expect(hub.downloads(name)).to.have.length(1);
    const blobs = path.join(repo(), 'blobs');
    expect(fs.readdirSync(blobs).filter((name) => name.includes('.'))).to.deep.equal([]);
    const blob = fs.readdirSync(blobs).find((name) => name.length === 64)!;
    fs.rmSync(path.join(a, 'model.safetensors'));
    fs.renameSync(path.join(blobs, blob), path.join(blobs, `${blob}.tfjs.incomplete`));
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    fs.writeFileSync(path.join(blobs, `${blob}.tfjs.lock`), `${pid} ${os.hostname()}`);
    await resolve();
    expect(fs.readdirSync(blobs).filter((name) => name.includes('.'))).to.deep.equal([]);
    // what the killed one had fetched was whole, so nothing more was asked for
    expect(hub.downloads('model.safetensors')).to.have.length(1);
  });

  it('wait for a busy server', async () => {
    hub.statuses['config.json'] = [503, 429];
    await resolve();
    expect(hub.downloads('config.json')).to.have.length(3);
  });

  it('are refused when a checksum is wrong, large file or small; a bad beginning is fetched again', async () => {
    for (const name of ['tokenizer.json', 'model.safetensors']) {
      const bad = hub.files[name]!.slice();
      bad[1]! ^= 1;
      hub.wrong = { [name]: bad };
      const error = await failure(resolve());
      expect(error).to.be.instanceOf(CheckpointError);
      expect(error.message)
        .to.include(name)
        .and.match(/does not match its checksum/);
      expect(fs.existsSync(path.join(repo(), 'refs/main'))).to.equal(false);
    }
    hub.wrong = {};
    hub.cuts['model.safetensors'] = [5000, 0, 0, 0, 0, 0];
    await failure(resolve());
    const blobs = path.join(repo(), 'blobs');
    const partial = fs.readdirSync(blobs).find((name) => name.endsWith('.incomplete'))!;
    fs.writeFileSync(path.join(blobs, partial), Buffer.alloc(5000, 7));
    await resolve();
  });

  it('write through no link that others planted in the cache, and say whom they wait for', async () => {
    const whole = await resolve();
    const blobs = path.join(repo(), 'blobs');
    const blob = fs.readdirSync(blobs).find((name) => name.length === 64)!;
    for (const file of [path.join(whole, 'model.safetensors'), path.join(blobs, blob)]) fs.rmSync(file);
    const mine = path.join(repo(), 'mine.txt');
    fs.writeFileSync(mine, 'mine');
    const planted = path.join(blobs, `${blob}.tfjs.incomplete`);
    fs.symlinkSync(mine, planted);
    const lock = path.join(blobs, `${blob}.tfjs.lock`);
    fs.writeFileSync(lock, '12 another-machine 5');
    const told: string[] = [];
    const on_warning = (message: string): void => {
      told.push(message);
      fs.rmSync(lock);
    };
    expect(await failure(resolve({ on_warning }))).to.be.instanceOf(SaveError);
    expect(fs.readFileSync(mine, 'utf8')).to.equal('mine');
    expect(told.join()).to.match(/waiting for process 12 on another-machine, which is fetching model\.safetensors/);
    fs.rmSync(planted);
    await resolve();
  });

  it('refuse more bytes than the listing says', async () => {
    hub.wrong['model.safetensors'] = new Uint8Array(200_000);
    expect((await failure(resolve())).message).to.match(/more than its 74424 bytes/);
  });

  it('follow redirects, without showing the token to another server', async () => {
    const cdn = new HubServer();
    cdn.files = hub.files;
    hub.cdn = await cdn.start();
    hub.token = 'hf_secret';
    try {
      await resolve({ token: 'hf_secret' });
      expect(cdn.seen.map(({ url }) => url)).to.deep.equal(['/cdn/model.safetensors']);
      expect(cdn.seen[0]!.authorization).to.equal(undefined);
      expect(hub.downloads('model.safetensors')[0]!.authorization).to.equal('Bearer hf_secret');
    } finally {
      await cdn.stop();
    }
  });

  it('come in parts: a tokenizer without weights, a configuration alone, and the rest when it is asked for', async () => {
    hub.files['additional_chat_templates/tools.jinja'] = text('{{ tools }}');
    const options = { cache_dir: root, endpoint, retry_delay: 1 };
    const dir = await locateModel('org/model', options, 'tokenizer');
    const names = (): string[] => fs.readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort();
    expect(names()).to.deep.equal([
      'additional_chat_templates',
      'additional_chat_templates/tools.jinja',
      'tokenizer.json',
    ]);
    await locateModel('org/model', options, 'config');
    expect(names()).to.include('config.json').and.not.include('model.safetensors');
    // what is there already serves offline, what is not does not
    expect(await locateModel('org/model', { ...options, local_files_only: true }, 'tokenizer')).to.equal(dir);
    await failure(resolve({ local_files_only: true }));
    await resolve();
    expect(names()).to.include('model.safetensors');
    delete hub.files['config.json'];
    delete hub.files['model.safetensors'];
    hub.refs.main = COMMIT_B;
    expect(await locateModel('org/model', options, 'tokenizer')).to.match(new RegExp(COMMIT_B));
  });

  it('without a tokenizer say so before any weight comes; a wrong kind of model is known by its configuration', async () => {
    process.env.HF_ENDPOINT = endpoint;
    delete hub.files['tokenizer.json'];
    for (const load of [
      () => AutoTokenizer.from_pretrained('org/model', { cache_dir: root }),
      () => pipeline('text-generation', 'org/model', { cache_dir: root }),
    ]) {
      const { message } = await failure(load());
      expect(message).to.include('no tokenizer').and.include('EleutherAI/gpt-neox-20b');
    }
    for (const config of [{ model_type: 'llama' }, { d_model: 64, attn_layer_idx: [1] }, { model_type: 'mamba' }]) {
      hub.files['config.json'] = text(JSON.stringify(config));
      fs.rmSync(path.join(root, 'models--org--model'), { recursive: true, force: true });
      expect((await failure(AutoModelForCausalLM.from_pretrained('org/model', { cache_dir: root }))).message).to.match(
        /model_type|attn_layer_idx/,
      );
    }
    expect(hub.downloads('model.safetensors')).to.have.length(0);
  });

  it('take any token that a hub of another kind gives, and show it to the hub alone', async () => {
    hub.token = 'glpat-xyz';
    await resolve({ token: 'glpat-xyz' });
    expect((await failure(resolve({ token: 'two words', revision: 'dev' }))).message).to.include('no token has');
    // a page of the list that another host has
    const other = new HubServer();
    other.files = { 'more.txt': text('x') };
    const elsewhere = await other.start();
    try {
      hub.next = `${elsewhere}/api/models/org/model/tree/${COMMIT_A}`;
      hub.refs.main = COMMIT_B;
      await resolve({ token: 'glpat-xyz' });
      expect(other.seen).to.have.length(1);
      expect(other.seen[0]!.authorization).to.equal(undefined);
    } finally {
      await other.stop();
    }
  });

  it('end when pages lead to themselves, answers are no JSON, or nothing comes', async () => {
    hub.next = `${endpoint}/api/models/org/model/tree/${COMMIT_A}?cursor=1`;
    const circle = await failure(resolve());
    expect(circle).to.be.instanceOf(CheckpointError);
    expect(circle.message).to.include('lead back');
    hub.next = undefined;
    hub.notJson = '<html>sign in</html>';
    const page = await failure(resolve());
    expect(page).to.be.instanceOf(CheckpointError);
    expect(page.message).to.include('no JSON');
    hub.notJson = undefined;
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = '0.3';
    hub.stalls = { api: 'answer' };
    const silent = await failure(resolve());
    expect(silent).to.be.instanceOf(CheckpointError);
    expect(silent.message).to.include('0.3 s');
    // a file that stalls is asked for again
    for (const kind of ['answer', 'body'] as const) {
      hub.stalls = { 'model.safetensors': kind };
      fs.rmSync(path.join(root, 'models--org--model'), { recursive: true, force: true });
      await resolve();
    }
  });

  it('come through the proxy of the environment, but for hosts that NO_PROXY names', async () => {
    const tunnels: string[] = [];
    const proxy = http.createServer((request, response) => {
      tunnels.push(request.url!);
      const through = http.request(request.url!, { headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      request.pipe(through);
    });
    proxy.on('connect', (request, socket, head) => {
      tunnels.push(request.url!);
      const [host, port] = request.url!.split(':');
      const server = net.connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
        server.write(head);
        server.pipe(socket).pipe(server);
      });
      server.on('error', () => socket.destroy());
      socket.on('error', () => server.destroy());
    });
    await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
    try {
      process.env.HTTP_PROXY = `http://127.0.0.1:${(proxy.address() as net.AddressInfo).port}`;
      process.env.NO_PROXY = '';
      await resolve();
      const first = tunnels.length;
      expect(first).to.be.greaterThan(0);
      process.env.NO_PROXY = '127.0.0.1';
      hub.refs.main = COMMIT_B;
      await resolve();
      expect(tunnels.length).to.equal(first);
      process.env.NO_PROXY = '';
      process.env.HTTP_PROXY = 'http://127.0.0.1:1';
      expect((await failure(resolve({ revision: 'other' }))).message).to.include('proxy http://127.0.0.1:1');
    } finally {
      proxy.closeAllConnections();
      proxy.close();
    }
  });

  it('say what to do when access is denied or nothing is there', async () => {
    hub.token = 'hf_secret';
    const denied = await failure(resolve());
    expect(denied).to.be.instanceOf(CheckpointError);
    expect(denied.message).to.match(/org\/model .*access is denied.*HF_TOKEN/);
    expect((denied as CheckpointError).data.status).to.equal(401);
    process.env.HF_TOKEN = 'hf_secret';
    await resolve();
    expect((await failure(resolve({ token: 'secret' }))).message).to.match(/access is denied/);
    const gone = await failure(resolve({ revision: 'v9' }));
    expect(gone.message).to.match(/revision v9.*not there/);
    hub.statuses['config.json'] = [404];
    fs.rmSync(repo(), { recursive: true });
    expect((await failure(resolve())).message).to.match(/config\.json: it is not there/);
  });

  it('are no models when configuration or weights are missing', async () => {
    delete hub.files['model.safetensors'];
    expect((await failure(resolve())).message).to.match(/none of model\.safetensors/);
    hub.files = { 'model.safetensors': new Uint8Array(9) };
    expect((await failure(resolve())).message).to.match(/neither config\.json/);
  });

  it('refuse names of files that leave the cache', async () => {
    hub.files['../../evil'] = text('x');
    expect((await failure(resolve())).message).to.match(/evil/);
    for (const revision of ['../x', '/etc', 'a//b', ''])
      expect(await failure(resolve({ revision }))).to.be.instanceOf(ArgumentError);
  });

  it('are taken from the cache offline, and only whole', async () => {
    const offline = (): Promise<string> => resolve({ local_files_only: true });
    expect((await failure(offline())).message).to.match(/no whole snapshot of revision main.*local_files_only/);
    const dir = await resolve();
    const before = hub.seen.length;
    expect(await offline()).to.equal(dir);
    process.env.HF_HUB_OFFLINE = '1';
    expect(await resolve()).to.equal(dir);
    expect(hub.seen).to.have.length(before);
    fs.rmSync(path.join(dir, 'model.safetensors'));
    expect((await failure(resolve())).message).to.match(/no whole snapshot/);
  });

  it('are taken from the cache, with a warning, when the hub cannot be reached', async () => {
    const dir = await resolve();
    await hub.stop();
    const warnings: string[] = [];
    expect(await resolve({ on_warning: (message) => warnings.push(message) })).to.equal(dir);
    expect(warnings.join()).to.match(/cannot be reached.*from the cache/);
    fs.rmSync(repo(), { recursive: true });
    expect((await failure(resolve())).message).to.match(/cannot be reached to fetch it/);
    hub = new HubServer();
    await hub.start();
  });

  it('stop when told to', async () => {
    const stop = new AbortController();
    const onProgress = (): void => stop.abort();
    expect(await failure(resolve({ signal: stop.signal, on_progress: onProgress }))).to.have.property(
      'name',
      'AbortError',
    );
    expect(fs.existsSync(path.join(repo(), 'refs/main'))).to.equal(false);
  });

  it('give way to local folders, and to what is no name', async () => {
    const dir = fixture('goldens/formats/single');
    expect(await resolveModel(dir)).to.equal(dir);
    for (const name of ['./gone', '/gone', 'a/b/c', 'org/..', 'C:\\x', ''])
      expect((await failure(resolveModel(name, { endpoint }))).message, name).to.match(/no folder/);
    expect(hub.seen).to.deep.equal([]);
  });

  it('give way to the model that travels in the package, and that to a folder of its name', async () => {
    const home = process.cwd();
    const packaged = path.resolve('models/tiny-books-mamba2');
    process.chdir(root);
    try {
      expect(await locateModel('tiny-books-mamba2', { endpoint })).to.equal(packaged);
      fs.mkdirSync('tiny-books-mamba2');
      expect(await locateModel('tiny-books-mamba2', { endpoint })).to.equal('tiny-books-mamba2');
    } finally {
      process.chdir(home);
    }
    expect(hub.seen).to.deep.equal([]);
  });
});

describe('the settings of the hub', () => {
  it('are those of huggingface_hub', () => {
    const home = os.homedir();
    expect(hubCacheRoot({})).to.equal(path.join(home, '.cache/huggingface/hub'));
    expect(hubCacheRoot({ XDG_CACHE_HOME: '/c' })).to.equal('/c/huggingface/hub');
    expect(hubCacheRoot({ HF_HOME: '/h', XDG_CACHE_HOME: '/c' })).to.equal('/h/hub');
    expect(hubCacheRoot({ HF_HOME: '~/h' })).to.equal(path.join(home, 'h/hub'));
    expect(hubCacheRoot({ HF_HUB_CACHE: '/x', HF_HOME: '/h' })).to.equal('/x');
    expect(
      [{}, { HF_HUB_OFFLINE: '0' }, { HF_HUB_OFFLINE: 'yes' }, { TRANSFORMERS_OFFLINE: '1' }].map(isOffline),
    ).to.deep.equal([false, false, true, true]);
    expect(hubToken({ HF_TOKEN: ' hf_a ', HF_TOKEN_PATH: '/none' })).to.equal('hf_a');
    expect(hubToken({ HF_TOKEN_PATH: '/none' })).to.equal(undefined);
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'token-')), 'token');
    fs.writeFileSync(file, 'hf_b\n');
    expect(hubToken({ HF_TOKEN_PATH: file })).to.equal('hf_b');
    fs.rmSync(path.dirname(file), { recursive: true });
  });

  it('know names of repositories', () => {
    for (const name of ['gpt2', 'state-spaces/mamba2-130m', 'AntonV/mamba2-2.7b-hf', 'a/b_c.d'])
      expect(isRepoId(name), name).to.equal(true);
    for (const name of ['', '.', 'a/b/c', '../a', 'a/..', '-a', 'a--b', 'a/b.git', 'a b', '/a', 'a/', 'a\\b'])
      expect(isRepoId(name), name).to.equal(false);
  });
});

describe('loading by name', function () {
  this.timeout(60_000);
  it('works for configuration, model, tokenizer and pipeline, from one copy', async () => {
    const saved = { ...process.env };
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'hub-'));
    const hub = new HubServer();
    try {
      process.env.HF_ENDPOINT = await hub.start();
      process.env.HF_HUB_CACHE = root;
      process.env.HF_TOKEN_PATH = path.join(root, 'none');
      for (const key of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'])
        delete process.env[key];
      hub.files = folder(fileURLToPath(new URL('../../models/tiny-books-mamba2', import.meta.url)));
      expect((await AutoConfig.from_pretrained('org/model')).num_hidden_layers).to.equal(8);
      const revision = COMMIT_A;
      const tokenizer = await AutoTokenizer.from_pretrained('org/model', { revision });
      const model = await AutoModelForCausalLM.from_pretrained('org/model', {
        revision,
        device: 'js',
        engine: 'eager',
      });
      const generator = await pipeline('text-generation', 'org/model', { device: 'js', engine: 'eager' });
      const text = 'Once upon a time';
      const named = await generator(text, { max_new_tokens: 3 });
      const local = await pipeline('text-generation', model, { tokenizer });
      expect(named).to.deep.equal(await local(text, { max_new_tokens: 3 }));
      generator.dispose();
      model.dispose();
      expect(hub.downloads('model.safetensors')).to.have.length(1);
      const error = await AutoModelForCausalLM.from_pretrained('org/other', { local_files_only: true }).catch(
        (e: unknown) => e,
      );
      expect(error).to.be.instanceOf(CheckpointError);
    } finally {
      restoreEnvironment(saved);
      await hub.stop();
      fs.rmSync(root, { recursive: true, force: true });
    }
  });
});

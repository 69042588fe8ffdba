/** What the page of the benchmark does: loads one engine or the other, and times it. bench/wllama.ts bundles and calls it. */
import { startWorker } from '../../dist/web/worker.js';

/** Ids of a prompt, each time others: wllama keeps what it has read. */
function prompt(count) {
  prompt.calls = (prompt.calls ?? 0) + 1;
  return Array.from({ length: count }, (_, i) => 1000 + ((prompt.calls * 7919 + i * 31) % 20000));
}

/** A token each, with the blank before it. */
const WORDS = [
  ' the',
  ' of',
  ' and',
  ' to',
  ' in',
  ' is',
  ' that',
  ' for',
  ' it',
  ' was',
  ' on',
  ' with',
  ' as',
  ' be',
  ' by',
  ' at',
];

/** As many tokens as text: wllama takes no ids. */
const textOf = (ids) => ids.map((id, i) => WORDS[(id + i) % WORDS.length]).join('');

/** Names of the models' files. */
const asked = new URL(document.location.href).searchParams;

const ours = {
  model: null,
  async load(threads) {
    const pack = startWorker({ url: '/web/worker_script.js' });
    await pack.configureBrowser({ threads });
    this.model = await pack.AutoModelForCausalLM.from_pretrained(`/models/${asked.get('ours')}`, { device: 'wasm' });
  },
  async write(ids, tokens) {
    const made = await this.model.generate({ input_ids: [ids], max_new_tokens: tokens, min_new_tokens: tokens, do_sample: false }); // prettier-ignore
    if (made[0].length !== ids.length + tokens) throw new Error(`ours wrote ${made[0].length - ids.length} tokens`);
  },
  async decode(tokens) {
    // the prompt's time is not taken off
    const start = performance.now();
    await this.write(prompt(1), tokens);
    return (1000 * tokens) / (performance.now() - start);
  },
  async prefill(tokens) {
    const start = performance.now();
    await this.write(prompt(tokens), 1);
    return (1000 * tokens) / (performance.now() - start);
  },
};

const wllama = {
  engine: null,
  async load(threads) {
    const { Wllama } = await import('/wllama/esm/index.js');
    const silent = { debug() {}, log() {}, warn: console.warn, error: console.error };
    this.engine = new Wllama({ default: '/wllama/esm/wasm/wllama.wasm' }, { logger: silent, suppressNativeLog: true });
    await this.engine.loadModelFromUrl(new URL(`/models/${asked.get('gguf')}`, document.location.href).href, {
      n_threads: threads,
      n_ctx: 1024,
      n_batch: 512,
      n_gpu_layers: 0,
      n_parallel: 1,
      useCache: true,
    });
    if (this.engine.getNumThreads() !== threads) throw new Error(`wllama has ${this.engine.getNumThreads()} threads`);
  },
  /** Its own timings, which leave out what it does besides. */
  async write(ids, tokens) {
    const { timings } = await this.engine.createCompletion({
      // always the word "the": what random weights write may end within a letter, which it does not take
      logit_bias: { 253: 100 },
      prompt: textOf(ids),
      max_tokens: tokens,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: false,
    });
    if (timings.prompt_n !== ids.length || timings.predicted_n !== tokens || timings.cache_n !== 0)
      throw new Error(`wllama read and wrote something else: ${JSON.stringify(timings)}`);
    return timings;
  },
  async decode(tokens) {
    return (await this.write(prompt(1), tokens)).predicted_per_second;
  },
  async prefill(tokens) {
    return (await this.write(prompt(tokens), 1)).prompt_per_second;
  },
};

globalThis.engines = { ours, wllama };

/** Milliseconds from the call to the first token of a prompt of 16. */
globalThis.firstToken = async (name, threads) => {
  const engine = globalThis.engines[name];
  const start = performance.now();
  await engine.load(threads);
  await engine.write(prompt(16), 1);
  return performance.now() - start;
};

globalThis.ready = true;

// A page around tiny-books-mamba2: it streams, forks what it has read, and keeps it in the page's private files.
import { startWorker } from 'tfjs-mamba2/worker';

const FILE = 'opfs:/tiny-books.safetensors';
const TOKENS = 60;
const at = (id) => document.getElementById(id);
const say = (text) => (at('status').textContent = text);

const remote = startWorker({ url: new URL('./worker_script.js', import.meta.url) });
/** What is loaded, and for which choices. */
let loaded = null;
/** What the model has read before the end that is shown, and its text. */
let before = null;
/** What it has read in all. */
let state = null;
let stop = new AbortController();

async function load() {
  const [device, weights] = [at('device').value, at('weights').value];
  const choice = `${device}, ${weights}`;
  if (loaded?.choice === choice) return loaded;
  await forget();
  await loaded?.model.dispose();
  say(`Loading for ${choice} …`);
  const models = new URL('./models/', document.baseURI).href;
  await remote.configureBrowser({ packaged_models: models });
  const bits = { int4: 4, int8: 8 }[weights];
  const quantization_config =
    bits &&
    (await (bits === 4 ? new remote.Int4WeightOnlyConfig({ group_size: 64 }) : new remote.Int8WeightOnlyConfig()));
  const model = await remote.AutoModelForCausalLM.from_pretrained('tiny-books-mamba2', {
    device,
    ...(quantization_config && { quantization_config }),
    progress_callback: ({ status, file, progress }) =>
      status === 'progress' && say(`${file}: ${progress.toFixed(0)} %`),
  });
  const tokenizer = await remote.AutoTokenizer.from_pretrained('tiny-books-mamba2');
  loaded = { choice, model, tokenizer };
  return loaded;
}

async function forget() {
  await state?.dispose();
  await before?.state.dispose();
  state = before = null;
}

/** Writes on from `state` and shows the text as it comes, after `shown`. */
async function goOn(shown) {
  const { model, tokenizer, choice } = await load();
  stop = new AbortController();
  for (const id of ['write', 'fork', 'save', 'load']) at(id).disabled = true;
  at('stop').disabled = false;
  const ids = [];
  let first = 0;
  try {
    const streamer = {
      put: async (rows) => {
        first ||= performance.now();
        ids.push(...rows.flat());
        at('text').textContent = shown + (await tokenizer.decode(ids, { skip_special_tokens: true }));
      },
      end: () => undefined,
    };
    await model.generate({
      input_ids: [[]],
      state,
      max_new_tokens: TOKENS,
      do_sample: true,
      temperature: 0.8,
      streamer,
      signal: stop.signal,
    });
    const seconds = (performance.now() - first) / 1000;
    say(`${choice}: ${((ids.length - 1) / seconds).toFixed(1)} tokens a second`);
  } catch (error) {
    say(`${error.name}: ${error.message}`);
  }
  for (const id of ['write', 'fork', 'save', 'load']) at(id).disabled = false;
  at('stop').disabled = true;
}

const guarded = (work) => () => work().catch((error) => say(`${error.name}: ${error.message}`));

at('write').onclick = guarded(async () => {
  const { model } = await load();
  await forget();
  const text = at('prompt').value;
  state = await model.prefill(text);
  before = { state: await state.clone(), text };
  await goOn(text);
});

at('stop').onclick = () => stop.abort();

at('fork').onclick = guarded(async () => {
  await state.dispose();
  state = await before.state.clone();
  await goOn(before.text);
});

at('save').onclick = guarded(async () => {
  await state.save(FILE, { text: at('text').textContent });
  say('Kept in this page, also when it is closed.');
});

at('load').onclick = guarded(async () => {
  const { model } = await load();
  const { extra } = await remote.inspectState(FILE);
  await forget();
  state = await remote.Mamba2State.load(model, FILE);
  before = { state: await state.clone(), text: extra.text };
  await goOn(extra.text);
});

// the page's own files stay, too, so that it opens without a network
if ('serviceWorker' in navigator) await navigator.serviceWorker.register('./offline.js');

/**
 * The package in a worker: the same names, so that a page goes on while a model loads and writes. What a call gives there is given here with a
 * promise; models, tokenizers, states and streamers stay in the worker and are named by what this gives.
 */
import { Channel } from './browser/worker/messages.js';
import { DeviceError } from './base/errors.js';
import * as kinds from './base/option_kinds.js';
import { OptionTable } from './base/options.js';
import type { configureBrowser as configure, folderOfFiles as folderOf } from './browser.js';
import type { deviceReport as report, inspectState as inspect, selectBackend as select, TextStreamer as Streamer } from './index.js'; // prettier-ignore
import type { Chat, GeneratedChat, TextGenerationOptions, FeatureExtractionPipeline, PipelineOptions, Mamba2ForCausalLM, PretrainedOptions, Tokenizer, AutoTokenizerOptions, Mamba2State as State, PrefillInput, TextStreamerOptions } from './index.js'; // prettier-ignore

/** Where the worker's code is. */
export interface WorkerOptions {
  /** A worker that runs worker_script.js, where a bundler makes it. */
  worker?: Worker;
  /** Address of worker_script.js. Default: beside this code. */
  url?: string | URL;
}

const TABLE = new OptionTable<WorkerOptions>(
  'startWorker()',
  {
    worker: { kind: kinds.object },
    url: { kind: kinds.named('an address', (v) => typeof v === 'string' || v instanceof URL) },
  },
  {
    clashes: [
      { option: 'url', when: ({ worker }) => worker !== undefined, why: 'and worker is given too: pass either' },
    ],
  },
);

/** A function as it is asked for from another thread. */
type Later<F> = F extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never;

/** The methods of an object as they are asked for from another thread, where it stays, and some of its properties. */
export type RemoteObject<T, P extends keyof T = never> = {
  readonly [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: Later<T[K]>;
} & { readonly [K in P]: Promise<T[K]> };

/** A model in the worker. */
export interface RemoteModel extends Omit<
  RemoteObject<Mamba2ForCausalLM, 'generation_config'>,
  'prefill' | 'generate'
> {
  generate(inputs: object, options?: object): Promise<number[][]>;
  prefill(prompt: PrefillInput, options?: object): Promise<RemoteState>;
}

/** What a model has read, in the worker. */
export interface RemoteState extends Omit<RemoteObject<State, 'seen' | 'ids' | 'batch'>, 'clone' | 'select'> {
  clone(): Promise<RemoteState>;
  select(rows: readonly number[]): Promise<RemoteState>;
}

/** A tokenizer in the worker. */
export type RemoteTokenizer = RemoteObject<Tokenizer, 'vocab_size'>;

/** A pipeline in the worker. */
export interface RemotePipeline {
  (input: string | readonly string[], options?: TextGenerationOptions): Promise<{ generated_text: string }[]>;
  (input: Chat | readonly Chat[], options?: TextGenerationOptions): Promise<GeneratedChat[]>;
  readonly tokenizer: RemoteTokenizer;
  readonly model: RemoteModel;
  dispose(): Promise<void>;
}

/** The package in a worker. */
export interface WorkerPackage {
  pipeline(task: 'text-generation', model: string, options?: PipelineOptions): Promise<RemotePipeline>;
  pipeline(task: 'feature-extraction', model: string, options?: PipelineOptions): Promise<RemoteObject<FeatureExtractionPipeline>>; // prettier-ignore
  readonly AutoModelForCausalLM: { from_pretrained(name: string, options?: PretrainedOptions): Promise<RemoteModel> };
  readonly AutoTokenizer: { from_pretrained(name: string, options?: AutoTokenizerOptions): Promise<RemoteTokenizer> };
  readonly Mamba2State: { load(model: RemoteModel, file: string): Promise<RemoteState> };
  readonly TextStreamer: new (
    tokenizer: RemoteTokenizer,
    options?: TextStreamerOptions,
  ) => Promise<RemoteObject<Streamer>>;
  readonly inspectState: Later<typeof inspect>;
  readonly selectBackend: Later<typeof select>;
  readonly deviceReport: Later<typeof report>;
  readonly configureBrowser: Later<typeof configure>;
  readonly folderOfFiles: Later<(files: readonly File[]) => ReturnType<typeof folderOf>>;
  /** Ends the worker; calls that wait fail. */
  terminate(): void;
}

/**
 * Starts a worker with the package in it.
 * @throws ArgumentError for an unknown option; DeviceError, in the calls that wait, where the worker's code cannot be loaded
 * @example const remote = startWorker();
 */
export function startWorker(options: WorkerOptions = {}): WorkerPackage {
  TABLE.check(options);
  const worker =
    options.worker ?? (options.url === undefined ? new Worker(new URL('./worker_script.js', import.meta.url), { type: 'module' }) : new Worker(options.url, { type: 'module' })); // prettier-ignore
  const channel = new Channel(worker);
  worker.addEventListener('error', ({ message }) => {
    const why = message ? `: ${message}` : '';
    channel.fail(
      new DeviceError(`The worker's code does not run${why}. Its file is worker_script.js of dist/web.`, {}),
    );
  });
  const remote = channel.root as WorkerPackage;
  // names are those of the page's folder
  const ready = remote.configureBrowser({ base: new URL('.', document.baseURI).href });
  ready.catch(() => undefined);
  return new Proxy(remote, {
    get: (target, name) => (name === 'terminate' ? () => end(worker, channel) : (Reflect.get(target, name) as unknown)),
  });
}

function end(worker: Worker, channel: Channel): void {
  worker.terminate();
  channel.fail(new DeviceError('The worker was ended.', {}));
}

let first: WorkerPackage | null = null;

/** The worker of this module's functions, started when it is first asked for. */
function own(): WorkerPackage {
  return (first ??= startWorker());
}

/** pipeline() in a worker. */
export const pipeline: WorkerPackage['pipeline'] = (task: string, model: string, options?: PipelineOptions) =>
  own().pipeline(task as 'text-generation', model, options) as Promise<never>;

/** AutoModelForCausalLM in a worker. */
export const AutoModelForCausalLM: WorkerPackage['AutoModelForCausalLM'] = {
  from_pretrained: (name, options) => own().AutoModelForCausalLM.from_pretrained(name, options),
};

/** AutoTokenizer in a worker. */
export const AutoTokenizer: WorkerPackage['AutoTokenizer'] = {
  from_pretrained: (name, options) => own().AutoTokenizer.from_pretrained(name, options),
};

/** Mamba2State in a worker. */
export const Mamba2State: WorkerPackage['Mamba2State'] = {
  load: (model, file) => own().Mamba2State.load(model, file),
};

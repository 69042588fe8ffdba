/** A server over one model: listens, gets warm, and comes to an end without cutting anybody off. */
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { Scheduler } from '../engine/scheduler/scheduler.js';
import { QueueFullError, SchedulerClosedError } from '../engine/scheduler/errors.js';
import { buildApp } from './app.js';
import { ServerContext } from './context.js';
import { ApiError } from './errors.js';
import { Grammars } from './grammar/grammars.js';
import { jsonObjectGrammar } from './grammar/json_rules.js';
import { ServerMetrics } from './metrics.js';
import { pooled } from './pooling.js';
import { schedulerOptions, type Settings } from './options.js';
import { TokenTexts } from './token_texts.js';

/** Milliseconds that answers have to leave after their rows were ended. */
const LAST_WORDS = 2000;

export class RunningServer {
  private ended: Promise<void> | null = null;

  private constructor(
    private readonly app: FastifyInstance,
    private readonly context: ServerContext,
    private readonly requests: Requests,
    private readonly metrics: ServerMetrics,
  ) {}

  /** Begins to listen, and gets warm meanwhile. */
  static async start(settings: Settings): Promise<RunningServer> {
    const metrics = new ServerMetrics(settings.model_name);
    const scheduler = new Scheduler(await settings.model.engine(), {
      ...schedulerOptions(settings),
      on_event: (event) => metrics.note(event),
    });
    try {
      metrics.watch(scheduler);
      const texts = new TokenTexts(settings.tokenizer);
      const context = new ServerContext(settings, scheduler, texts, grammarsOf(settings, texts));
      const app = await buildApp(context, metrics);
      const requests = new Requests(app);
      await app.listen({ host: settings.host, port: settings.port });
      const server = new RunningServer(app, context, requests, metrics);
      server.warm();
      return server;
    } catch (error) {
      await scheduler.close();
      throw error;
    }
  }

  /** Where it is reached. */
  get url(): string {
    const { address, port, family } = this.app.server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  }

  /** Settles when the first request would be as fast as all. Rejects where the model cannot run. */
  ready!: Promise<void>;

  private warm(): void {
    const { context, metrics } = this;
    const began = performance.now();
    this.ready = warmUp(context).then(() => {
      context.warm = true;
      metrics.begin((performance.now() - began) / 1000);
    });
    this.ready.catch((error: unknown) => this.app.log.error({ err: error }, 'warming up failed'));
  }

  /** Takes no more requests, lets running ones come to their end, and then stops. @param seconds that they have */
  close(seconds: number): Promise<void> {
    this.ended ??= this.end(seconds);
    return this.ended;
  }

  private async end(seconds: number): Promise<void> {
    const { context, app, requests } = this;
    context.ending = true;
    await this.ready.catch(() => undefined);
    await context.scheduler.drain(seconds * 1000);
    await requests.over(LAST_WORDS);
    await app.close();
    await context.scheduler.close();
  }
}

/** Runs what requests of each kind run, so that none of them waits for a program to be compiled. */
async function warmUp({ scheduler, settings, grammars }: ServerContext): Promise<void> {
  await scheduler.warmup();
  const kinds = [
    { do_sample: false },
    { do_sample: true, top_p: 0.9, seed: 1 },
    { do_sample: true, seed: 1, logprobs: 1, num_return_sequences: 2 },
    { do_sample: false, logit_bias: [[0, 0]] as const, presence_penalty: 0.5 },
    { do_sample: false, constraint: () => ({ mask: () => null, accept: () => false }) },
  ];
  const submit = async (kind: object): Promise<void> => {
    try {
      // longer than a block of tokens
      await scheduler.submit({ input_ids: [0], max_new_tokens: 12, cache: false, eos_token_id: null, ...kind }).result;
    } catch (error) {
      // who asks meanwhile may have filled the queue; alone it has run already
      if (!(error instanceof SchedulerClosedError || error instanceof QueueFullError)) throw error;
    }
  };
  for (const kind of kinds) await submit(kind);
  // side by side too, as many as there are rows
  await Promise.all(kinds.slice(0, scheduler.metrics().rows).map(submit));
  await pooled(settings.model, [0], 'mean', new AbortController().signal);
  await warmGrammars(grammars);
}

/** Reads the vocabulary and compiles what `json_object` asks for, where grammars are installed. */
async function warmGrammars(grammars: Grammars): Promise<void> {
  try {
    (await grammars.of(jsonObjectGrammar())).dispose();
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'not_installed')) throw error;
  }
}

function grammarsOf({ tokenizer, model }: Settings, texts: TokenTexts): Grammars {
  const { eos_token_id } = model.generation_config;
  const ends = eos_token_id == null ? [] : typeof eos_token_id === 'number' ? [eos_token_id] : [...eos_token_id];
  const special = new Set(
    Object.values(tokenizer.special_tokens).flatMap(({ content }) => tokenizer.token_to_id(content) ?? []),
  );
  return new Grammars(texts, tokenizer.vocab_size, special, ends);
}

/** Counts the requests that are being answered. */
class Requests {
  private count = 0;
  private empty: (() => void)[] = [];

  constructor(app: FastifyInstance) {
    app.server.on('request', (_, response) => {
      this.count++;
      response.once('close', () => {
        if (--this.count === 0) for (const resolve of this.empty.splice(0)) resolve();
      });
    });
  }

  /** Settles when there is none, after so long at the latest. */
  async over(milliseconds: number): Promise<void> {
    if (this.count === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
    await Promise.race([new Promise<void>((resolve) => this.empty.push(resolve)), late]);
    clearTimeout(timer);
  }
}

/** `/metrics` for Prometheus, by the names that vLLM's dashboards and the Kubernetes inference gateway read, with `mamba2:` before them. */
import type { FastifyInstance } from 'fastify';
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { RequestScheduler, SchedulerEvent, SchedulerMetrics } from '../engine/scheduler/types.js';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const PER_TOKEN = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

export class ServerMetrics {
  readonly registry = new Registry();
  private readonly first: Histogram;
  private readonly between: Histogram;
  private readonly whole: Histogram;
  private readonly queued: Histogram;
  private readonly answers: Counter;
  private readonly warmup: Gauge;
  private scheduler: RequestScheduler | null = null;
  /** Times of warming up are nobody's. */
  private counting = false;

  constructor(model_name: string) {
    this.registry.setDefaultLabels({ model_name });
    collectDefaultMetrics({ register: this.registry });
    this.first = this.histogram('time_to_first_token_seconds', 'From a request to its first token.', SECONDS);
    this.between = this.histogram('inter_token_latency_seconds', 'Between two tokens of a row.', PER_TOKEN);
    this.whole = this.histogram('e2e_request_latency_seconds', 'From a request to its last token.', SECONDS);
    this.queued = this.histogram(
      'request_queue_time_seconds',
      'From a request to the beginning of its prompt’s reading.',
      SECONDS,
    );
    this.warmup = new Gauge({
      name: 'mamba2:warmup_seconds',
      help: 'What getting warm took; 0 before it is done.',
      registers: [this.registry],
    });
    this.answers = new Counter({
      name: 'mamba2:http_responses_total',
      help: 'Answers by their path and status.',
      labelNames: ['path', 'status'],
      registers: [this.registry],
    });
  }

  /** The scheduler whose numbers are told. */
  watch(scheduler: RequestScheduler): void {
    this.scheduler = scheduler;
    this.gauge('num_requests_running', 'Requests with a row, or whose prompt is read.', (m) => m.running);
    this.gauge('num_requests_waiting', 'Requests in the queue.', (m) => m.waiting);
    this.gauge('num_requests_waiting_limit', 'Requests that may wait.', (m) => m.queue);
    this.gauge('num_rows', 'Rows that run at once.', (m) => m.rows);
    this.gauge('num_rows_running', 'Rows that are taken.', (m) => m.rows_running);
    // the rows are what a key-value cache is elsewhere: when all are taken, the next request waits
    this.gauge(
      'kv_cache_usage_perc',
      'Share of the rows that are taken, 0 to 1.',
      (m) => m.rows_running / Math.max(1, m.rows),
    );
    this.gauge('state_cache_usage_perc', 'Share of the state cache’s budget that is in use, 0 to 1.', ({ cache }) =>
      cache.host.budget === 0 ? 0 : cache.host.bytes / cache.host.budget,
    );
    this.gauge('state_cache_bytes', 'Bytes of kept states in memory.', ({ cache }) => cache.host.bytes);
    this.gauge(
      'state_cache_device_bytes',
      'Bytes of snapshots in the program, on a GPU on the card.',
      ({ cache }) => cache.device?.bytes ?? 0,
    );
    this.sum('prefix_cache_queries_total', 'Prompts that were looked up.', (m) => m.cache.queries);
    this.sum('prefix_cache_hits_total', 'Prompts of which the beginning was known.', (m) => m.cache.hits);
    this.sum('prompt_tokens_total', 'Tokens of prompts.', (m) => m.prompt_tokens);
    this.sum(
      'prompt_tokens_cached_total',
      'Tokens of prompts that were not read, being known.',
      (m) => m.cached_tokens,
    );
    this.sum('generation_tokens_total', 'New tokens.', (m) => m.completion_tokens);
    this.sum('num_preemptions_total', 'Rows that gave way to others.', (m) => m.preemptions);
    this.sum('request_success_total', 'Requests that ended well.', (m) => m.finished);
    this.sum('request_failure_total', 'Requests that failed.', (m) => m.failed);
    this.sum('request_aborted_total', 'Requests whose clients left.', (m) => m.aborted);
    this.sum('request_refused_total', 'Requests that found the queue full.', (m) => m.refused);
  }

  /** From now on times count. @param seconds that getting warm took */
  begin(seconds: number): void {
    this.counting = true;
    this.warmup.set(seconds);
  }

  /** Told what happens in the scheduler. */
  note(event: SchedulerEvent): void {
    if (!this.counting) return;
    switch (event.kind) {
      case 'admitted':
        return this.queued.observe(event.milliseconds / 1000);
      case 'first_token':
        return this.first.observe(event.milliseconds / 1000);
      case 'tokens':
        for (let token = 0; token < event.count; token++) this.between.observe(event.milliseconds / 1000);
        return;
      case 'finished':
        return this.whole.observe(event.result.times.total / 1000);
      default:
    }
  }

  routes(app: FastifyInstance): void {
    app.addHook('onResponse', async ({ routeOptions }, { statusCode }) => {
      // the pattern of the path: paths themselves are anybody's
      this.answers.inc({ path: routeOptions.url ?? 'none', status: String(statusCode) });
    });
    app.get(
      '/metrics',
      { logLevel: 'warn', schema: { summary: 'Numbers for Prometheus', tags: ['operation'] } },
      async (_, reply) => reply.type(this.registry.contentType).send(await this.registry.metrics()),
    );
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: `mamba2:${name}`, help, buckets, registers: [this.registry] });
  }

  private gauge(name: string, help: string, read: (metrics: SchedulerMetrics) => number): void {
    const metrics = (): SchedulerMetrics => this.scheduler!.metrics();
    new Gauge({
      name: `mamba2:${name}`,
      help,
      registers: [this.registry],
      collect() {
        this.set(read(metrics()));
      },
    });
  }

  /** A sum that the scheduler keeps. */
  private sum(name: string, help: string, read: (metrics: SchedulerMetrics) => number): void {
    const metrics = (): SchedulerMetrics => this.scheduler!.metrics();
    new Counter({
      name: `mamba2:${name}`,
      help,
      registers: [this.registry],
      collect() {
        this.reset();
        this.inc(read(metrics()));
      },
    });
  }
}

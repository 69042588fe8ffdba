/** A server over the small model, in this process, and requests to it. */
import { AutoModelForCausalLM, AutoTokenizer } from '../../src/index.js';
import type { CausalLM } from '../../src/models/causal_lm.js';
import { createServer, type Mamba2Server, type ServerOptions } from '../../src/server.js';

export const MODEL = 'models/tiny-books-mamba2';

/** As small as templates are; one that knows of tools is told of them by `tools`. */
export const TEMPLATE =
  '{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}';

export interface Answer {
  status: number;
  headers: Headers;
  body: Record<string, unknown>;
}

export interface TestServer extends Mamba2Server {
  get(path: string, init?: RequestInit): Promise<Answer>;
  post(path: string, body: unknown, init?: RequestInit): Promise<Answer>;
  /** The events of a stream; the last is '[DONE]'. */
  stream(path: string, body: object): Promise<unknown[]>;
}

let model: Promise<CausalLM> | null = null;

/** Loaded once a process. */
export function theModel(): Promise<CausalLM> {
  model ??= AutoModelForCausalLM.from_pretrained(MODEL) as Promise<CausalLM>;
  return model;
}

/** @param chat whether the tokenizer gets a chat template */
export async function startServer(
  options: Partial<ServerOptions> = {},
  { chat_template }: { chat_template?: string } = {},
): Promise<TestServer> {
  const tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  if (chat_template !== undefined) tokenizer.chat_template = chat_template;
  const server = await createServer({
    model: await theModel(),
    tokenizer,
    model_name: 'tiny-books',
    port: 0,
    log_level: 'silent',
    rows: 4,
    ...options,
  });
  return Object.assign(
    Object.create(server) as Mamba2Server,
    requests(() => server.url),
  );
}

/** Requests to a server at some address. */
export function requests(url: () => string): Pick<TestServer, 'get' | 'post' | 'stream'> {
  const send = async (path: string, init: RequestInit): Promise<Answer> => {
    const response = await fetch(url() + path, init);
    const text = await response.text();
    const body = response.headers.get('content-type')?.includes('json') ? (JSON.parse(text) as object) : { text };
    return { status: response.status, headers: response.headers, body: body as Record<string, unknown> };
  };
  const posting = (body: unknown, init: RequestInit = {}): RequestInit => ({
    method: 'POST',
    ...init,
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string>) },
    body: JSON.stringify(body),
  });
  return {
    get: (path, init = {}) => send(path, init),
    post: (path, body, init) => send(path, posting(body, init)),
    stream: async (path, body) => {
      const response = await fetch(url() + path, posting({ ...body, stream: true }));
      return eventsOf(await response.text());
    },
  };
}

/** The events of a text of server-sent events, parsed. */
function eventsOf(text: string): unknown[] {
  return text
    .split('\n\n')
    .filter((part) => part !== '')
    .map((part) => {
      if (!part.startsWith('data: ')) throw new Error(`No event: ${part}`);
      const data = part.slice('data: '.length);
      return data === '[DONE]' ? data : (JSON.parse(data) as unknown);
    });
}

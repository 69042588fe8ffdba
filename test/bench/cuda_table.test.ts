import { expect } from 'chai';
import { parseLines, rowsOf, table } from '../../bench/cuda/table.js';

const HEAD = '"part":"ours","stage":"130m","card":"NVIDIA H100 80GB HBM3","driver":"580.159.04"';
const PEER = `${HEAD},"model":"130m","dtype":"bfloat16"`;
const lines = (...texts: string[]): string[] =>
  table(parseLines(texts.join('\n')))
    .split('\n')
    .filter((line) => line.startsWith('| 130m') || line.startsWith('| |') || line.startsWith('| 7b'));

describe('table of figures on a CUDA card', () => {
  const decode = `{${HEAD},"model":"130m","dtype":"bfloat16","state":"float32","batch":1,"what":"decode, blocks of 64","ms_token":[0.25,0.5,0.2],"tok_s":4000}`;

  it('one row with the middle of all rounds, their ends, the bar and how many times as fast', () => {
    const peer = `{${PEER},"engine":"transformers","versions":{"transformers":"5.17.0","torch":"2.11.0+cu130","kernels":null},"what":"decode","batch":1,"tokens":16,"ms_token":[30,20,25],"memory_mb":1234}`;
    // 0.25 ms are 4,000 tokens a second, 25 ms are 40
    expect(lines(decode, peer)).to.deep.equal([
      '| 130m bf16 | decode, batch 1, blocks of 64 | 4,000 tok/s (0.25 ms a token; 2,000–5,000) | 2,500 | 40 (100 x, 25 ms; 1.2 GB) | | |',
    ]);
  });

  it('what it was measured on, and the versions of the peers that took part', () => {
    const peer = `{${PEER},"engine":"mamba_ssm","versions":{"mamba_ssm":"2.3.2.post1","convolution":"causal_conv1d 1.7.0"},"what":"decode","batch":1,"ms_token":[1]}`;
    expect(table(parseLines([decode, peer].join('\n'))).split('\n')[0]).to.equal(
      'NVIDIA H100 80GB HBM3, driver 580.159.04. mamba_ssm: mamba_ssm 2.3.2.post1, convolution causal_conv1d 1.7.0.',
    );
  });

  it('lines of one figure are taken together', () => {
    const rows = rowsOf(parseLines([decode, decode.replace('[0.25,0.5,0.2]', '[1,2]')].join('\n')));
    expect(rows).to.have.length(1);
    expect(rows[0]!.figures.get('ours')!.ms).to.deep.equal({ median: 0.5, min: 0.2, max: 2 });
  });

  it('tokens of a batch count for each of its rows, and memory comes from the line about compiling', () => {
    const batch = decode.replace('"batch":1', '"batch":64').replace('float32', 'bfloat16').replace('of 64', 'of 16');
    const compile = `{${HEAD},"model":"130m","batch":64,"what":"compile","ms":{"decode 64 xla":1200},"memory_mb":2500}`;
    expect(lines(batch, compile)).to.deep.equal([
      '| 130m bf16 | decode, batch 64, blocks of 16 | 256,000 tok/s (0.25 ms a token; 128,000–320,000; 2.5 GB, states in bf16) | | | | |',
    ]);
  });

  it('one row with states in bfloat16 has a row of its own, beside the peer that stores them so', () => {
    const narrow = decode.replace('float32', 'bfloat16').replace('[0.25,0.5,0.2]', '[0.125]');
    const peer = (engine: string): string =>
      `{${PEER},"engine":"${engine}","what":"decode","batch":1,"ms_token":[0.5],"memory_mb":1000}`;
    expect(lines(decode, narrow, peer('transformers'), peer('mamba_ssm'))).to.deep.equal([
      '| 130m bf16 | decode, batch 1, blocks of 64 | 4,000 tok/s (0.25 ms a token; 2,000–5,000) | 2,500 | 2,000 (2 x, 0.5 ms; 1.0 GB) | | 2,000 (2 x, 0.5 ms; 1.0 GB) |',
      '| | decode, batch 1, blocks of 64, states in bf16 | 8,000 tok/s (0.125 ms a token; 8,000–8,000) | 2,500 | | | 2,000 (4 x, 0.5 ms; 1.0 GB) |',
    ]);
  });

  it('memory of a process that measures several batches belongs to none of them', () => {
    const compile = (batch: number): string =>
      `{${HEAD},"model":"130m","batch":${batch},"what":"compile","ms":{},"memory_mb":2500}`;
    const two = [8, 32].map((batch) => decode.replace('"batch":1', `"batch":${batch}`));
    expect(lines(...two, compile(8), compile(32)).join()).not.to.contain('GB');
  });

  it('a peer without ours beside it has no ratio', () => {
    const peer = `{${PEER},"engine":"mamba_ssm","what":"training step","batch":8,"rows_at_once":8,"length":2048,"ms":[1024],"memory_mb":23500}`;
    expect(lines(peer)).to.deep.equal(['| 130m bf16 | training step 8 x 2,048 | | 150,000 | | | 16,000 (23.5 GB) |']);
  });

  it('memory that does not suffice: said, and the figure of the largest that fits', () => {
    const own = `{${HEAD},"model":"7b","dtype":"bfloat16","batch":1,"what":"prefill","tokens":2048,"ms":[80],"tok_s":25600}`;
    const peer = (tokens: number, rest: string): string =>
      `{${HEAD},"engine":"transformers","model":"7b","what":"prefill","batch":1,"tokens":${tokens},${rest}}`;
    const failed = '"failed":"out of memory","why":"CUDA out of memory"';
    expect(lines(own, peer(2048, failed), peer(1024, failed), peer(512, '"ms":[1000,1024,2000]'))).to.deep.equal([
      '| 7b bf16 | prefill of 2,048, batch 1 | 25,600 tok/s (80 ms; 25,600–25,600) | 25,000 | 500 (51.2 x, a prompt of 512: out of memory with more) | | |',
    ]);
    expect(lines(own, peer(2048, failed))[0]).to.contain('| out of memory | | |');
  });

  it('training in parts says how many rows are computed at once', () => {
    const own = `{${HEAD},"model":"130m","what":"training step","batch":8,"length":2048,"bf16":true,"ms":[100,102.4,110],"tok_s":160000}`;
    const peer = `{${PEER},"engine":"transformers","what":"training step","batch":8,"rows_at_once":2,"length":2048,"ms":[10240],"memory_mb":70000}`;
    const failed = `{${PEER},"engine":"transformers","what":"training step","batch":8,"rows_at_once":4,"length":2048,"failed":"out of memory"}`;
    expect(lines(own, failed, peer)).to.deep.equal([
      '| 130m bf16 | training step 8 x 2,048 | 160,000 tok/s (102 ms; 148,900–163,800) | 150,000 | 1,600 (100 x, 2 rows at once: out of memory with more; 70.0 GB) | | |',
    ]);
  });

  it('rows in order, a model named once, other lines passed over, stages that failed below', () => {
    const text = [
      'not JSON',
      '{"cut off',
      `{${HEAD},"device":{"gpu":{}}}`,
      `{${HEAD},"what":"stage","seconds":80,"failed":"stopped after 80 s"}`,
      `{${HEAD},"model":"7b","int4":true,"what":"decode, blocks of 64","batch":1,"ms_token":[2]}`,
      decode.replace('"batch":1', '"batch":8'),
      `{${HEAD},"model":"130m","layers":4,"what":"prefill","batch":1,"tokens":64,"ms":[1]}`,
      `{${HEAD},"model":"130m","what":"prefill","batch":1,"tokens":2048,"ms":[5]}`,
      decode,
    ].join('\n');
    const all = table(parseLines(text)).split('\n');
    expect(all.slice(4).map((line) => line.split('|').slice(0, 3).join('|').trimEnd())).to.deep.equal([
      '| 130m bf16 | decode, batch 1, blocks of 64',
      '| | prefill of 2,048, batch 1',
      '| | decode, batch 8, blocks of 64',
      '| 7b int4 | decode, batch 1, blocks of 64',
      '',
      '130m: stopped after 80 s',
    ]);
  });
});

/** What nvidia-smi says of a machine's GPUs, of texts that it printed. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { linkWords, parseCards, parseTopology } from '../../src/runtime/cards.js';
import { mamba2 } from '../cli/support.js';
import { folderForEach } from '../support/cleanup.js';

const MIB = 2 ** 20;
const TOPOLOGY = [
  '\t\u001b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\u001b[0m',
  'GPU0\t X \tNV18\tPIX\t0-31\t0\t\tN/A',
  'GPU1\tNV18\t X \tSYS\t32-63\t1\t\tN/A',
  'NIC0\tPIX\tSYS\t X ',
  '',
  'Legend:',
  '',
  '  X    = Self',
].join('\n');

describe('GPUs by nvidia-smi', () => {
  const folder = folderForEach('cards');

  it('have memory in bytes, where the driver tells it', () => {
    const text = '0, 143771, 143123, NVIDIA H200\n1, [N/A], [N/A], NVIDIA GB10, or so\nWARNING: infoROM is corrupted\n';
    expect(parseCards(text)).to.deep.equal([
      { index: 0, name: 'NVIDIA H200', memory: { total: 143771 * MIB, free: 143123 * MIB } },
      { index: 1, name: 'NVIDIA GB10, or so', memory: null },
    ]);
    expect(parseCards('No devices were found\n')).to.deep.equal([]);
  });

  it('have links to each other, and none to network cards', () => {
    expect([...parseTopology(TOPOLOGY)]).to.deep.equal([
      [0, [{ to: 1, kind: 'NV18' }]],
      [1, [{ to: 0, kind: 'NV18' }]],
    ]);
    expect([...parseTopology('')]).to.deep.equal([]);
    expect([linkWords('NV18'), linkWords('SYS'), linkWords('NEW')]).to.deep.equal([
      'NVLink (18 links)',
      'between NUMA nodes',
      'NEW',
    ]);
  });

  it('are lines of `mamba2 env`', () => {
    const script = [
      '#!/bin/sh',
      'case "$1" in',
      "topo) cat <<'EOF'",
      TOPOLOGY,
      'EOF',
      ';;',
      '*) printf "0, 143771, 140000, NVIDIA H200\\n1, 143771, 1024, NVIDIA H200\\n" ;;',
      'esac',
    ];
    fs.writeFileSync(path.join(folder(), 'nvidia-smi'), script.join('\n'), { mode: 0o755 });
    const env = { PATH: `${folder()}:${process.env.PATH}` };
    const text = mamba2(['env', '--device', 'js'], { env }).out;
    expect(text).to.match(/GPU 1 +NVIDIA H200, 1\.0 of 140\.4 GiB free; to GPU 0 by NVLink \(18 links\)/);
    const report = JSON.parse(mamba2(['env', '--device', 'js', '--json'], { env }).out) as {
      gpu: { cards: unknown[] };
    };
    expect(report.gpu.cards[1]).to.deep.equal({
      index: 1,
      name: 'NVIDIA H200',
      memory: { total: 143771 * MIB, free: 1024 * MIB },
      links: [{ to: 0, kind: 'NV18' }],
    });
  });
});

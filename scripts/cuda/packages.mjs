// The folders of node_modules that a CUDA machine needs: what this package depends on, tsx, mocha and chai, and all that these take.
import { existsSync, readFileSync } from 'node:fs';

const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const found = new Set();

/** Finds a package as Node.js does, from the folder of the one that takes it upwards. */
function visit(name, from) {
  for (let base = from; ; base = base.slice(0, Math.max(0, base.lastIndexOf('/node_modules/')))) {
    const place = `${base ? `${base}/` : ''}node_modules/${name}`;
    const entry = packages[place];
    if (entry) {
      if (found.has(place)) return;
      found.add(place);
      for (const next of needs(entry)) visit(next, place);
      return;
    }
    if (!base) return; // optional, and not for this machine
  }
}

const needs = (entry) =>
  Object.keys({ ...entry.dependencies, ...entry.optionalDependencies, ...entry.peerDependencies });

for (const name of [...needs(packages['']), 'tsx', 'mocha', 'chai']) visit(name, '');
const top = [...found].map((place) => place.slice('node_modules/'.length));
process.stdout.write(
  top
    .filter((place) => existsSync(`node_modules/${place}`))
    .map((place) => `${place}/\n`)
    .join(''),
);

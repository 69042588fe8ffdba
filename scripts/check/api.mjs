// `node scripts/check/api.mjs [--write]`: compares the types in dist/ with the reports in etc/api, one for each entry of the package, or
// writes the reports. A change of the face then shows as a change of a file that is read in review.
import { CompilerState, Extractor, ExtractorConfig } from '@microsoft/api-extractor';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const write = process.argv.includes('--write');
const { exports } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const entries = Object.values(exports)
  .map(({ types }) => types)
  .filter(Boolean)
  .map((types) => path.join(root, types));

const missing = entries.filter((entry) => !existsSync(entry));
if (missing.length) {
  process.stderr.write(`${missing.join(', ')}: not there. Run \`npm run build\` first.\n`);
  process.exit(1);
}

const aside = mkdtempSync(path.join(tmpdir(), 'api-'));
process.on('exit', () => rmSync(aside, { recursive: true }));

function config(entry) {
  const name = path.basename(entry, '.d.ts');
  return ExtractorConfig.prepare({
    configObjectFullPath: undefined,
    packageJsonFullPath: path.join(root, 'package.json'),
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: entry,
      newlineKind: 'lf',
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: 'ES2022',
            module: 'NodeNext',
            moduleResolution: 'NodeNext',
            strict: true,
            skipLibCheck: true,
            types: ['node'],
          },
          files: entries,
        },
      },
      apiReport: { enabled: true, reportFileName: name, reportFolder: 'etc/api', reportTempFolder: aside },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        // TypeScript itself checks the code; comments are for people.
        compilerMessageReporting: { default: { logLevel: 'none' } },
        tsdocMessageReporting: { default: { logLevel: 'none' } },
        extractorMessageReporting: {
          default: { logLevel: 'none' },
          // a type that a signature names and the entry does not export: shown in the report
          'ae-forgotten-export': { logLevel: 'warning', addToApiReportFile: true },
        },
      },
    },
  });
}

const configs = entries.map(config);
const compilerState = CompilerState.create(configs[0], { additionalEntryPoints: entries.slice(1) });
let changed = 0;
for (const each of configs) {
  const result = Extractor.invoke(each, {
    localBuild: write,
    compilerState,
    messageCallback: (message) => {
      if (message.logLevel !== 'error') message.handled = true;
    },
  });
  if (!result.apiReportChanged) continue;
  changed++;
  const report = path.relative(root, each.reportFilePath);
  process.stderr.write(
    write ? `${report} is written\n` : `${report} does not match dist: the package's face has changed\n`,
  );
}
if (changed && !write) {
  process.stderr.write('If that is meant, run `npm run api` and commit the reports; see docs/decisions/016_face.md.\n');
  process.exitCode = 1;
}

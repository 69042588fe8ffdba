/**
 * `tsx scripts/docs/option_tables.ts [--check]`: writes docs/options.md, a table of the options of every function that takes some.
 * Names, what each takes and defaults are those that the functions check by (src/base/options.ts); what an option does is said by the
 * docstring of its field. With --check it writes nothing and fails where the file is not what it would write.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';
import { type OptionRule, optionTables } from '../../src/base/options.js';

const FILE = 'docs/options.md';
const HEAD = `# Options

Every function that takes options checks them before it does anything else. An unknown name is an error that says what was meant; so is a
value of another kind, and an option that has no effect beside the others. What stands here is made of the tables that the functions check
by (\`npm run docs\`).
`;

/** Entries of the package, which load every table. */
const ENTRIES = ['index', 'jit', 'layers', 'training', 'checkpoints', 'server'];

/** Where a table is made: the type of its options. */
interface Declared {
  readonly where: string;
  readonly type: ts.Type;
}

function declaredTables(program: ts.Program, checker: ts.TypeChecker): Declared[] {
  const found: Declared[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isNewExpression(node) && node.expression.getText() === 'OptionTable') {
      const [argument] = node.typeArguments ?? [];
      const [where] = node.arguments ?? [];
      if (argument && where && ts.isStringLiteralLike(where))
        found.push({ where: where.text, type: checker.getTypeFromTypeNode(argument) });
    }
    ts.forEachChild(node, visit);
  };
  for (const file of program.getSourceFiles())
    if (/\/src\//.test(file.fileName) && !file.isDeclarationFile) visit(file);
  return found;
}

function descriptionOf(type: ts.Type | undefined, name: string, checker: ts.TypeChecker): string {
  const text = ts.displayPartsToString(type?.getProperty(name)?.getDocumentationComment(checker));
  return text.replaceAll(/\s*\n\s*/g, ' ').replaceAll('|', '\\|');
}

function rowOf(name: string, { kind, default: value }: OptionRule, description: string): string {
  const shown =
    value === undefined ? '' : typeof value === 'string' ? `'${value}'` : String(JSON.stringify(value) ?? value);
  return `| \`${name}\` | ${kind.expected.replaceAll('|', '\\|')} | ${shown} | ${description} |`;
}

/** The text of docs/options.md. */
async function optionTablesText(root: string): Promise<string> {
  for (const entry of ENTRIES) await import(pathToFileURL(path.join(root, 'src', `${entry}.ts`)).href);
  const config = ts.readConfigFile(path.join(root, 'tsconfig.json'), (file) => ts.sys.readFile(file));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const files = ENTRIES.map((entry) => path.join(root, 'src', `${entry}.ts`));
  const program = ts.createProgram(files, { ...options, noEmit: true, skipLibCheck: true });
  const checker = program.getTypeChecker();
  const declared = declaredTables(program, checker);
  const tables = [...optionTables()].sort((a, b) => (a.where < b.where ? -1 : a.where > b.where ? 1 : 0));
  const parts = tables.map((table) => {
    // two tables may have one name, such as those of forward(): the one whose type has all the options
    const same = declared.filter(({ where }) => where === table.where);
    const type = same.find((each) => table.names.every((name) => each.type.getProperty(name)))?.type ?? same[0]?.type;
    const rows = Object.entries<OptionRule>(table.rules as Record<string, OptionRule>).map(([name, rule]) =>
      rowOf(name, rule, descriptionOf(type, name, checker)),
    );
    const elsewhere = Object.entries(table.others).filter(([, other]) => typeof other === 'string');
    const renamed = elsewhere.map(([name, here]) => `\`${name}\` is \`${here as string}\``).join(', ');
    const none = 'It takes no options.';
    const head = '| option | takes | default | |\n|---|---|---|---|\n';
    return `\n## ${table.where}\n\n${rows.length ? head + rows.join('\n') : none}\n${renamed ? `\nElsewhere: ${renamed}.\n` : ''}`;
  });
  return HEAD + [...new Set(parts)].join('');
}

async function main(): Promise<void> {
  const root = process.cwd();
  const text = await optionTablesText(root);
  const file = path.join(root, FILE);
  if (!process.argv.includes('--check')) return fs.writeFileSync(file, text);
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) return;
  process.stderr.write(`${FILE} is not what the tables of options say. Run \`npm run docs\`.\n`);
  process.exitCode = 1;
}

await main();

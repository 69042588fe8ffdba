/** The reports of etc/api say what the package's types are; docs/decisions/015_spelling.md says how names are spelled. */
import * as fs from 'node:fs';
import { expect } from 'chai';
import * as ts from 'typescript';
import { codeBlocks } from '../support/markdown.js';

/** The entries of the package: '.' is index, './jit' is jit. */
function entries(): string[] {
  const { exports } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { exports: Record<string, unknown> };
  return Object.keys(exports)
    .filter((key) => !key.endsWith('.json'))
    .map((key) => (key === '.' ? 'index' : key.slice(2)));
}

/** Types of the TensorFlow.js facing surface that the entries for Hugging Face's users have too. */
const KERAS =
  /^(AdamW\w*|CausalLMTrainer|CompileArgs|EvaluateArgs|FitArgs|FitCallback|RuntimeOptions|SelectOptions|Setup\w+|DeviceReport|RuntimeManifest|Mamba2MixerArgs)$/;

/** Fields of models that stand for a tf.LayersModel. */
const OF_LAYERS = new Set(['layersModel']);

/** The statements of an entry's report. */
function statementsOf(entry: string): readonly ts.Statement[] {
  const [code] = codeBlocks(fs.readFileSync(`etc/api/${entry}.api.md`, 'utf8'), 'ts');
  return ts.createSourceFile('api.ts', code!, ts.ScriptTarget.ES2022, true).statements;
}

/** Names that an entry exports as types alone, classes among them, which a report shows like any other. */
function typesOf(entry: string): Set<string> {
  const text = fs.readFileSync(`src/${entry}.ts`, 'utf8');
  const { statements } = ts.createSourceFile('entry.ts', text, ts.ScriptTarget.ES2022, true);
  const names = statements.filter(ts.isExportDeclaration).flatMap(({ exportClause, isTypeOnly }) => {
    if (!exportClause || !ts.isNamedExports(exportClause)) return [];
    return exportClause.elements.filter((each) => isTypeOnly || each.isTypeOnly).map(({ name }) => name.text);
  });
  return new Set(names);
}

/** Names of the classes, functions and constants that a report exports. */
function valuesOf(entry: string): string[] {
  const statements = statementsOf(entry);
  const declared = statements.flatMap((statement): { name: string; statement: ts.Statement }[] => {
    if (ts.isVariableStatement(statement))
      return statement.declarationList.declarations.map(({ name }) => ({ name: name.getText(), statement }));
    if (ts.isClassDeclaration(statement) || ts.isFunctionDeclaration(statement))
      return [{ name: statement.name!.text, statement }];
    return [];
  });
  // a name that the file had already is declared under another one and exported at the end
  const renamed = statements.filter(ts.isExportDeclaration).flatMap(({ exportClause }) => {
    if (!exportClause || !ts.isNamedExports(exportClause)) return [];
    return exportClause.elements
      .filter(({ propertyName }) => declared.some(({ name }) => name === propertyName?.text))
      .map(({ name }) => name.text);
  });
  const exported = declared.filter(({ statement }) => statement.getText().startsWith('export '));
  return [...exported.map(({ name }) => name), ...renamed];
}

/** Fields of one entry's interfaces and classes, as `Type.field`: properties and those of object types within, no methods. */
function fieldsOf(entry: string): string[] {
  const found: string[] = [];
  for (const statement of statementsOf(entry)) {
    if (!ts.isInterfaceDeclaration(statement) && !ts.isClassDeclaration(statement)) continue;
    const visit = (node: ts.Node): void => {
      if (ts.isPropertySignature(node) || ts.isPropertyDeclaration(node) || ts.isGetAccessor(node))
        found.push(`${statement.name!.text}.${node.name.getText()}`);
      ts.forEachChild(node, visit);
    };
    visit(statement);
  }
  return found;
}

describe("the package's face", () => {
  it('has a report of every entry', () => {
    const reports = fs.readdirSync('etc/api').map((file) => file.replace(/\.api\.md$/, ''));
    expect(reports).to.have.members(entries());
  });

  it('exports the values that the reports list, about ninety from the package itself', async () => {
    for (const entry of entries()) {
      const names = Object.keys((await import(`../../src/${entry}.js`)) as object);
      const types = typesOf(entry);
      const listed = valuesOf(entry).filter((name) => !types.has(name));
      expect(new Set(listed), entry).to.deep.equal(new Set(names));
      if (entry === 'index') expect(names.length).to.be.within(75, 95);
    }
  });

  it('spells fields as the libraries that it stands for do', () => {
    const camel = /^_*[a-z]+[a-z0-9]*[A-Z]/;
    const snake = /^[a-z0-9]+_[a-z0-9]/;
    const name = (field: string): string => field.split('.')[1]!;
    for (const entry of ['index', 'training', 'checkpoints']) {
      const fields = fieldsOf(entry).filter((field) => !KERAS.test(field.split('.')[0]!));
      expect(fields.length).to.be.greaterThan(50);
      expect(fields.filter((field) => camel.test(name(field)) && !OF_LAYERS.has(name(field)))).to.deep.equal([]);
    }
    for (const entry of ['jit', 'layers'])
      expect(fieldsOf(entry).filter((field) => snake.test(name(field)))).to.deep.equal([]);
  });
});

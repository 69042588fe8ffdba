/** Every exported function, constructor and method that takes an object of options, found in the types of the package's entries. */
import * as path from 'node:path';
import ts from 'typescript';

/** Entries of the package. */
export const ENTRIES = ['index', 'jit', 'layers', 'training', 'checkpoints', 'server'] as const;

/** A parameter that is an object of options, and how to call what has it. */
export interface OptionParameter {
  /** 'Mamba2ForCausalLM.from_pretrained(options)', for messages. */
  readonly title: string;
  readonly entry: string;
  /** Name of the export. */
  readonly name: string;
  readonly kind: 'function' | 'constructor' | 'static' | 'method';
  /** Name of the method, where it is one. */
  readonly member: string;
  /** Place of the parameter. */
  readonly index: number;
  /** Names of the options, by the type. */
  readonly names: readonly string[];
  /** Whether the type lets any name through. */
  readonly open: boolean;
}

const isOurs = (node: ts.Node | undefined): boolean =>
  node !== undefined &&
  /\/src\//.test(node.getSourceFile().fileName) &&
  !/node_modules/.test(node.getSourceFile().fileName);

/** Object types of which some field may be left out, other than classes, functions, lists and tensors. */
function isOptions(type: ts.Type, checker: ts.TypeChecker): boolean {
  if (type.isUnion()) return type.types.some((each) => isOptions(each, checker));
  const composed = ts.TypeFlags.Object | ts.TypeFlags.Intersection;
  if (!(type.flags & composed)) return false;
  if (type.isClass() || checker.isArrayLikeType(type) || type.getCallSignatures().length > 0) return false;
  const properties = type.getProperties();
  const own = properties.filter(({ declarations }) => isOurs(declarations?.[0]));
  if (own.length === 0 || own.length < properties.length) return false;
  if (own.some(({ flags }) => flags & ts.SymbolFlags.Method && !(flags & ts.SymbolFlags.Optional))) return false;
  return own.some(({ flags }) => (flags & ts.SymbolFlags.Optional) !== 0);
}

/** All of them. */
export function optionParameters(root = process.cwd()): OptionParameter[] {
  const config = ts.readConfigFile(path.join(root, 'tsconfig.json'), (file) => ts.sys.readFile(file));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const files = ENTRIES.map((entry) => path.join(root, 'src', `${entry}.ts`));
  const program = ts.createProgram(files, { ...options, noEmit: true, skipLibCheck: true });
  const checker = program.getTypeChecker();
  const found = new Map<string, OptionParameter>();

  const addSignatures = (
    signatures: readonly ts.Signature[],
    entry: string,
    name: string,
    kind: OptionParameter['kind'],
    member: string,
    symbol: ts.Symbol,
  ): void => {
    for (const signature of signatures) {
      if (!isOurs(signature.declaration) || isPrivate(signature.declaration)) continue;
      signature.getParameters().forEach((parameter, index) => {
        // not read; told to callbacks; what JavaScript's own errors take
        if (parameter.name.startsWith('_') || member.startsWith('on_') || isError(symbol)) return;
        const type = checker.getNonNullableType(checker.getTypeOfSymbol(parameter));
        if (!isOptions(type, checker)) return;
        const parts = (type.isUnion() ? type.types : [type]).filter((each) => isOptions(each, checker));
        const names = parts.flatMap((each) => each.getProperties().map((p) => p.name));
        const open = parts.some((each) => checker.getIndexInfoOfType(each, ts.IndexKind.String) !== undefined);
        const title = `${kind === 'constructor' ? `new ${name}` : member ? `${name}.${member}` : name}(${parameter.name})`;
        const key = `${title} at ${index}`;
        if (!found.has(key))
          found.set(key, { title, entry, name, kind, member, index, names: [...new Set(names)], open });
      });
    }
  };

  const isError = (symbol: ts.Symbol): boolean =>
    (symbol.flags & ts.SymbolFlags.Class) !== 0 &&
    checker.getDeclaredTypeOfSymbol(symbol).getProperty('stack') !== undefined;

  for (const [at, file] of files.entries()) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(file)!);
    for (const exported of checker.getExportsOfModule(module!)) {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      if (!(symbol.flags & (ts.SymbolFlags.Function | ts.SymbolFlags.Class | ts.SymbolFlags.Variable))) continue;
      const typeOnly = exported.declarations?.some(
        (d) => ts.isExportSpecifier(d) && (d.isTypeOnly || d.parent.parent.isTypeOnly),
      );
      if (typeOnly) continue;
      const [entry, name] = [ENTRIES[at]!, exported.name];
      const type = checker.getTypeOfSymbol(symbol);
      addSignatures(type.getCallSignatures(), entry, name, 'function', '', symbol);
      if (!(symbol.flags & ts.SymbolFlags.Class)) continue;
      if (!isAbstract(symbol)) addSignatures(type.getConstructSignatures(), entry, name, 'constructor', '', symbol);
      for (const member of type.getProperties().filter((each) => each.name !== 'prototype'))
        addSignatures(checker.getTypeOfSymbol(member).getCallSignatures(), entry, name, 'static', member.name, symbol);
      for (const member of checker.getDeclaredTypeOfSymbol(symbol).getProperties()) {
        if (isHidden(member)) continue;
        addSignatures(checker.getTypeOfSymbol(member).getCallSignatures(), entry, name, 'method', member.name, symbol);
      }
    }
  }
  return [...found.values()];
}

function modifiers(symbol: ts.Symbol): ts.ModifierFlags {
  const declaration = symbol.valueDeclaration;
  return declaration ? ts.getCombinedModifierFlags(declaration) : ts.ModifierFlags.None;
}

const isPrivate = (declaration: ts.Declaration | undefined): boolean =>
  declaration !== undefined && (ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Private) !== 0;
const isHidden = (symbol: ts.Symbol): boolean =>
  (modifiers(symbol) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) !== 0;
const isAbstract = (symbol: ts.Symbol): boolean => (modifiers(symbol) & ts.ModifierFlags.Abstract) !== 0;

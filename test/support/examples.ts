/** The @example blocks of the sources, found and run, so that what the documentation shows is what works. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as ts from 'typescript';

export interface Example {
  /** File below src/ and the name that the comment documents, for example 'layers/einsum.ts einsum'. */
  title: string;
  /** Whole path of the file. */
  file: string;
  code: string;
}

const root = fileURLToPath(new URL('../../src/', import.meta.url));

function sources(dir = root): string[] {
  return fs.readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const full = path.join(dir, entry.name);
    if (entry.isDirectory()) return sources(full);
    return entry.name.endsWith('.ts') ? [full] : [];
  });
}

/** The name of what follows a comment: a class, function, method, constant. */
function documented(after: string): string {
  const line = after.trimStart().split('\n')[0]!;
  const words = line.replace(
    /\b(export|default|abstract|static|async|class|function|const|get|override|readonly|interface|type)\b/g,
    '',
  );
  return /[\w$]+/.exec(words)?.[0] ?? '?';
}

/** Files of src/ with a fenced block: examples have one form, @example. */
export function fencedFiles(): string[] {
  return sources().filter((file) => /^[ \t]*\* ```/m.test(fs.readFileSync(file, 'utf8')));
}

/** Every @example of every comment of src/, in order of files. */
export function findExamples(): Example[] {
  return sources()
    .sort()
    .flatMap((file) => {
      const text = fs.readFileSync(file, 'utf8');
      return [...text.matchAll(/\/\*\*(.*?)\*\//gs)].flatMap((comment) => {
        const body = comment[1]!.replace(/^[ \t]*\*? ?/gm, '');
        const name = documented(text.slice(comment.index + comment[0].length));
        // an example goes on to the next tag or to the end of the comment
        return [...body.matchAll(/@example\b(.*?)(?=^@\w|$(?![\s\S]))/gms)].map((match) => ({
          title: `${path.relative(root, file)} ${name}`,
          file,
          code: match[1]!.trim(),
        }));
      });
    });
}

/** Runs code with the given names in scope; it may await. @returns what the code declared, by name */
export async function runExample(
  code: string,
  scope: Readonly<Record<string, unknown>>,
): Promise<Record<string, unknown>> {
  const declared = [...code.matchAll(/^(?:const|let) (?:(\w+)|[[{]([^\]}]*)[\]}])/gm)].flatMap(([, one, several]) =>
    one ? [one] : several!.split(',').map((part) => part.split(':').pop()!.trim()),
  );
  const { outputText } = ts.transpileModule(`${code}\nreturn { ${declared.filter(Boolean).join(', ')} };`, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const names = Object.keys(scope).filter((name) => !declared.includes(name));
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...args: unknown[]) => Promise<unknown>;
  const run = new AsyncFunction(...names, outputText);
  return (await run(...names.map((name) => scope[name]))) as Record<string, unknown>;
}

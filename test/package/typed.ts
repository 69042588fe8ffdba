/** What TypeScript says of a project, its own files and those of the packages that it imports. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as ts from 'typescript';

export interface Complaint {
  /** Below the project. */
  file: string;
  message: string;
}

/** Writes files into a project and checks them: `strict`, declarations of packages too. */
export function complaintsOf(project: string, sources: Readonly<Record<string, string>>): Complaint[] {
  const names = Object.keys(sources).map((name) => path.join(project, name));
  Object.values(sources).forEach((source, i) => fs.writeFileSync(names[i]!, source));
  const program = ts.createProgram(names, {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    strict: true,
    skipLibCheck: false,
    noEmit: true,
    typeRoots: [path.join(project, 'node_modules/@types')],
  });
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => ({
    file: file ? path.relative(fs.realpathSync(project), fs.realpathSync(file.fileName)) : '',
    message: ts.flattenDiagnosticMessageText(messageText, '\n'),
  }));
}

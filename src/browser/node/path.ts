/** node:path, for addresses and for paths of the page's own files. */

export const sep = '/';

/** Parts put together; `.` and empty ones are left out, `..` goes up. */
export function join(...parts: string[]): string {
  const all = parts.filter((part) => part !== '').join('/');
  const head = /^(?:[a-z][a-z0-9+.-]*:\/\/[^/]*|[a-z][a-z0-9+.-]*:|)\/?/i.exec(all)![0];
  const out: string[] = [];
  for (const part of all.slice(head.length).split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..' && out.length > 0 && out.at(-1) !== '..') out.pop();
    else if (part !== '..' || head === '') out.push(part);
  }
  return (head + out.join('/') || '.') + (/.\/$/.test(all) && out.length > 0 ? '/' : '');
}

/** As join(), but from the last part on that stands for itself. */
export function resolve(...parts: string[]): string {
  const from = parts.reduce((last, part, i) => (isAbsolute(part) ? i : last), 0);
  return join(...parts.slice(from)).replace(/(.)\/$/, '$1');
}

export function basename(path: string, suffix = ''): string {
  const name = path.replace(/\/+$/, '').split('/').at(-1)!;
  return suffix !== '' && name !== suffix && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
}

export function dirname(path: string): string {
  const trimmed = path.replace(/\/+$/, '');
  const at = trimmed.lastIndexOf('/');
  return at < 0 ? '.' : trimmed.slice(0, Math.max(1, at));
}

export function extname(path: string): string {
  return /(?!^)\.[^.]*$/.exec(basename(path))?.[0] ?? '';
}

export function isAbsolute(path: string): boolean {
  return /^(?:[a-z][a-z0-9+.-]*:|\/)/i.test(path);
}

export function relative(from: string, to: string): string {
  return to.startsWith(`${from}/`) ? to.slice(from.length + 1) : to;
}

export default { sep, join, resolve, basename, dirname, extname, isAbsolute, relative };

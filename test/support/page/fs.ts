/** node:fs for tests that run in a page: what tests read at once comes by requests that the page waits for. */
export * from '../../../src/browser/node/fs.js';

function request(file: string, method: string): XMLHttpRequest | null {
  const asked = new XMLHttpRequest();
  asked.open(method, new URL(file, document.baseURI), false);
  // every byte as one character
  asked.overrideMimeType('text/plain; charset=x-user-defined');
  asked.send();
  return asked.status === 200 ? asked : null;
}

export const existsSync = (file: string): boolean => request(file, 'HEAD') !== null;

export function readFileSync(file: string, encoding?: string): Uint8Array | string {
  const asked = request(file, 'GET');
  if (!asked) throw new Error(`${file} is not there`);
  const bytes = Uint8Array.from(asked.responseText, (c) => c.charCodeAt(0) & 255);
  return encoding === undefined ? bytes : new TextDecoder().decode(bytes);
}

/** What tests leave behind. To be called within describe(). */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

/** A list whose members are disposed after each test, the last one first. */
export function disposedAfterEach(): { dispose(): void }[] {
  const made: { dispose(): void }[] = [];
  afterEach(() =>
    made
      .splice(0)
      .reverse()
      .forEach((x) => x.dispose()),
  );
  return made;
}

/** A new folder for each test, removed after it. @returns its path */
export function folderForEach(name: string): () => string {
  let dir: string;
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), `${name}-`))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));
  return () => dir;
}

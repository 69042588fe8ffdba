/** The demo page, as a person uses it: it writes, forks, keeps what it has read, and opens without a network. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { buildDemo, serveFolder } from '../../scripts/demo_browser.mjs';
import { inChromium, openPage } from '../support/pages.js';

inChromium('the demo page', [], (browser) => {
  let folder: string;
  let server: Server;
  before(async () => {
    folder = await buildDemo(fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-demo-')));
    server = await serveFolder(folder, 0);
  });
  after(() => {
    server?.closeAllConnections();
    server?.close();
    fs.rmSync(folder, { recursive: true, force: true });
  });

  it('writes, forks, keeps, and goes on after a reload without a network', async () => {
    const told: string[] = [];
    const page = await openPage(browser(), `http://localhost:${(server.address() as AddressInfo).port}/`, told);
    const written = async (): Promise<string> => {
      await page.waitForFunction(`/tokens a second|Error/.test(document.getElementById('status').textContent)`, undefined, { timeout: 60_000 }); // prettier-ignore
      expect(await page.textContent('#status'), told.join('\n')).to.match(/^wasm, float32: [\d.]+ tokens a second$/);
      return (await page.textContent('#text'))!;
    };
    const press = async (id: string): Promise<void> => {
      await page.evaluate(`document.getElementById('status').textContent = ''`);
      await page.click(id);
    };
    await press('#write');
    const first = await written();
    expect(first).to.match(/^Once upon a time.{60,}/s);
    await press('#fork');
    const second = await written();
    expect(second)
      .to.match(/^Once upon a time/)
      .and.not.equal(first);
    await press('#save');
    await page.waitForFunction(`/Kept/.test(document.getElementById('status').textContent)`);
    await page.evaluate('navigator.serviceWorker.ready.then(() => undefined)');
    await page.context().setOffline(true);
    server.closeAllConnections();
    server.close();
    await page.reload();
    await press('#load');
    const third = await written();
    expect(third.startsWith(second)).to.equal(true);
    expect(third.length).to.be.greaterThan(second.length + 60);
    await page.close();
  });
});

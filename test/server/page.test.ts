/** The page at `/` in a real Chromium: by keyboard, in both modes, light and dark. */
import { expect } from 'chai';
import type { Page } from 'playwright-core';
import { inChromium } from '../support/pages.js';
import { startServer, TEMPLATE, type TestServer } from './support.js';

inChromium('the page', [], (browser) => {
  let server: TestServer;
  let page: Page;
  const errors: string[] = [];
  before(async () => {
    server = await startServer({}, { chat_template: TEMPLATE });
    await server.ready;
    page = await browser().newPage();
    page.setDefaultTimeout(120_000);
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    page.on('pageerror', (error) => errors.push(String(error)));
    await page.goto(server.url);
    await page.getByRole('radio', { name: 'Chat' }).isChecked();
  });
  after(async () => {
    await page.close();
    await server.close();
  });

  const status = (text: RegExp): Promise<void> => page.getByRole('status').filter({ hasText: text }).waitFor();
  const set = async (label: string, value: string): Promise<void> => {
    await page
      .locator('details')
      .first()
      .evaluate((each) => ((each as unknown as { open: boolean }).open = true));
    await page.getByLabel(label).fill(value);
  };

  it('chats by keyboard alone, and shows how fast', async () => {
    await set('Most new tokens', '12');
    await page.getByLabel('Message', { exact: true }).focus();
    await page.keyboard.type('Who is Emma?');
    await page.keyboard.press('Enter');
    await status(/Finished: \d+ tokens, [\d.]+ a second/);
    const said = await page.getByRole('article').allInnerTexts();
    expect(said).to.have.length(2);
    expect(said[0]).to.match(/You\s+Who is Emma\?/);
    expect(said[1]).to.match(/^Model\s+\S/);
    expect(await page.evaluate('document.activeElement.id')).to.equal('message');
  });

  it('goes on, and tries again from an earlier answer', async () => {
    await page.getByLabel('Message', { exact: true }).fill('And then?');
    await page.keyboard.press('Enter');
    await status(/Finished: .*known/);
    expect(await page.getByRole('article').count()).to.equal(4);
    await page.getByRole('button', { name: 'Try again from here, answer 1' }).click();
    await status(/Finished/);
    expect(await page.getByRole('article').count()).to.equal(2);
  });

  it('stops', async () => {
    await set('Most new tokens', '4000');
    await page.getByLabel('Message', { exact: true }).fill('Tell me all');
    await page.keyboard.press('Enter');
    await status(/Writing/);
    await page.keyboard.press('Escape');
    await status(/Stopped: \d+ tokens/);
    expect(await page.getByRole('button', { name: 'Send' }).isEnabled()).to.equal(true);
  });

  it('completes texts, saves a state and goes on from it', async () => {
    await set('Most new tokens', '8');
    await set('Temperature', '0');
    await page.getByRole('radio', { name: 'Completion' }).check();
    const box = page.getByLabel('Text to go on with');
    await box.fill('It was a dark and stormy');
    await page.getByRole('button', { name: 'Save state' }).click();
    await status(/Kept: \d+ tokens in [\d.]+ MB/);
    await box.fill('Another text');
    await page.getByRole('button', { name: /^Load: It was a dark and stormy/ }).click();
    await box.press('End');
    await box.pressSequentially(' night');
    await page.getByRole('button', { name: 'Go on' }).click();
    await status(/Finished/);
    const text = await box.inputValue();
    const { body } = await server.post('/v1/completions', {
      prompt: 'It was a dark and stormy night',
      max_tokens: 8,
      temperature: 0,
      top_p: 0.95,
    });
    expect(text).to.equal(`It was a dark and stormy night${(body.choices as { text: string }[])[0]!.text}`);
    await page.getByRole('button', { name: /^Forget/ }).click();
    await page.getByText('None.').waitFor();
  });

  it('can be read in light and dark: text stands out from what is behind it', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      const ratios: number[] = await page.evaluate(`(() => {
        const channel = (v) => (v /= 255, v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number); return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
        const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255,255,255)'; };
        return [...document.querySelectorAll('h1, h2, p, label, button:not([disabled]), textarea, summary')].filter((e) => e.offsetParent).map((e) => {
          const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        });
      })()`);
      expect(ratios.length).to.be.greaterThan(8);
      expect(Math.min(...ratios), colorScheme).to.be.greaterThan(4.5); // WCAG AA
    }
    // every control has a name
    const unnamed = await page.evaluate(
      `[...document.querySelectorAll('button, input, textarea')].filter((e) => !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).length`,
    );
    expect(unnamed).to.equal(0);
  });

  it('asks nothing of other servers, and breaks none of its own rules', () => {
    expect(errors).to.deep.equal([]);
  });
});

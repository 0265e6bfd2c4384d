/**
 * What the page costs: bytes, first render, frames under sixty events a second, idle processor time, memory over a long
 * replay, and ten thousand pictures. `npm run bench:web`; needs Chromium at /usr/bin/chromium.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SECONDS = Number(process.env.SECONDS ?? 30);
const folder = mkdtempSync(join(tmpdir(), 'bench-web-'));

const assets = join(ROOT, 'packages/web/dist/assets');
for (const name of readdirSync(assets).filter((file) => file.endsWith('.gz')))
  console.log(`${name.replace(/-\w+\./, '.').padEnd(16)} ${(statSync(join(assets, name)).size / 1000).toFixed(1)} kB`);

const child = spawn(process.execPath, ['bin/qwen-supervisor.js', 'start', '--port', '0', '--data-dir', folder], {
  cwd: ROOT,
});
const url = await new Promise((resolve) => {
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
    const found = /listening on (http:\S+?)"/.exec(text);
    if (found) resolve(found[1]);
  });
});
const isReady = () =>
  fetch(`${url}/readyz`).then(
    ({ ok }) => ok,
    () => false,
  );
while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, 100));

const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--enable-precise-memory-info',
  '--js-flags=--expose-gc',
];
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: flags });

/** From the request to the form that can be typed in; nothing is cached. */
const renders = [];
for (let i = 0; i < 5; i++) {
  const page = await (await browser.newContext()).newPage();
  const begun = performance.now();
  await page.goto(`${url}/app/`);
  await page.locator('#prompt').waitFor();
  renders.push(performance.now() - begun);
  await page.context().close();
}
console.log(`first render    ${renders.map((ms) => ms.toFixed(0)).join(' ')} ms`);

/** A server that answers as ours, and tells as many events as are wanted. */
const proxy = await eventServer(url);
const page = await (await browser.newContext()).newPage();
await page.goto(`${proxy.url}/app/`);
await page.locator('#prompt').waitFor();
await page.evaluate(() => {
  const frames = [];
  window.frames60 = frames;
  let before = performance.now();
  const frame = (now) => {
    frames.push(now - before);
    before = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
await proxy.tell(60, SECONDS);
const frames = await page.evaluate(() => window.frames60);
const late = frames.filter((ms) => ms > 25).length;
console.log(
  `60 events/s     ${frames.length} frames in ${SECONDS} s, ${late} above 25 ms, longest ${Math.max(...frames).toFixed(0)} ms`,
);

/** As many as come in an hour of a step a second, as fast as they are read. */
const heap = () =>
  page.evaluate(() => {
    window.gc?.();
    return performance.memory.usedJSHeapSize / 1e6;
  });
const before = await heap();
await proxy.tell(3600, 1);
await page.waitForTimeout(3000);
console.log(`heap            ${before.toFixed(1)} MB, after 3,600 events more ${(await heap()).toFixed(1)} MB`);
await page.context().close();

for (const screen of ['', 'queue', 'gallery', 'system']) {
  const idle = await (await browser.newContext()).newPage();
  await idle.goto(`${url}/app/${screen}`);
  await idle.waitForTimeout(2000);
  const session = await idle.context().newCDPSession(idle);
  await session.send('Performance.enable');
  const taskSeconds = async () =>
    (await session.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration').value;
  const from = await taskSeconds();
  await idle.waitForTimeout(10_000);
  console.log(
    `idle ${(screen || 'create').padEnd(10)} ${(((await taskSeconds()) - from) * 10).toFixed(2)} % of a core`,
  );
  await idle.context().close();
}

await browser.close();
proxy.close();
child.kill('SIGTERM');
await new Promise((resolve) => child.once('exit', resolve));
rmSync(folder, { recursive: true, force: true });

/** Gives everything of the real server, and events of its own. */
async function eventServer(upstream) {
  const listeners = new Set();
  let seq = 0;
  const png = readFileSync(join(ROOT, 'docs/fox.png')).toString('base64');
  const server = createServer(async (request, response) => {
    if (request.url.startsWith('/api/v1/events')) {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      listeners.add(response);
      return response.on('close', () => listeners.delete(response));
    }
    const answer = await fetch(upstream + request.url, { headers: { accept: request.headers.accept ?? '*/*' } });
    const headers = Object.fromEntries(
      [...answer.headers].filter(
        ([name]) =>
          !['content-encoding', 'content-length', 'connection', 'keep-alive', 'transfer-encoding'].includes(name),
      ),
    );
    response.writeHead(answer.status, headers);
    response.end(Buffer.from(await answer.arrayBuffer()));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const write = (name, data) => {
    for (const one of listeners) one.write(`id: x-${++seq}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => server.closeAllConnections() ?? server.close(),
    async tell(perSecond, seconds) {
      const id = `job_${'0'.repeat(24)}`;
      const job = {
        id,
        prompt: 'a fox',
        negativePrompt: ' ',
        width: 128,
        height: 128,
        numInferenceSteps: 1000,
        trueCfgScale: 4,
        seed: 1,
        initImage: null,
        strength: null,
        mask: null,
        status: 'queued',
        step: 0,
        steps: 1000,
        progress: 0,
        attempts: 0,
        priority: 0,
        position: 1,
        eta: null,
        source: 'api',
        group: null,
        retryOf: null,
        resumedAtStep: null,
        startedOverReason: null,
        devices: [],
        model: null,
        images: [],
        starred: false,
        trashedAt: null,
        error: null,
        createdAt: new Date().toISOString(),
        finishedAt: null,
      };
      write('queued', job);
      write('running', { id, attempt: 1, step: 0, startedOverReason: null, device: 'cpu', model: 'pocket' });
      for (let i = 0; i < perSecond * seconds; i++) {
        write('step', { id, i: Math.min(999, i), n: 1000, eta: { low: 1, high: 2 }, preview: png });
        await new Promise((resolve) => setTimeout(resolve, 1000 / perSecond));
      }
      write('cancelled', { ...job, status: 'cancelled' });
    },
  };
}

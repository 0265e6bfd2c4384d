/**
 * Four of Qwen-Image's 60 blocks and two of its 28 text layers, at full width, with random values: 5.8 GB. What holds
 * here of memory by weight, of kills and of precision holds for all. Takes a quarter of an hour: `npm run
 * test:full-width`.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { gaussianNoise } from '@qwen-supervisor/inference/recipe/noise';
import { Pass } from '@qwen-supervisor/inference/recipe/pipeline';
import { AMPLE, loadSessions, type Part } from '@qwen-supervisor/inference/recipe/sessions';
import type { PlanReport } from '@qwen-supervisor/model/plan/report';
import { openModel } from '@qwen-supervisor/model/registry/open-model';
import type { Job } from '@qwen-supervisor/protocol/job';
import { execa } from 'execa';
import { Tensor } from 'onnxruntime-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { writeQwenImage, writeValues } from '../qwen-image-sizes.js';
import { until } from '../system/product.js';

const GIB = 2 ** 30;
const KILLS = 20;
const MINUTES = 600_000;
/** Node, ONNX Runtime and the tokenizer. */
const NODE_BYTES = 120e6;
const BIN = join(REPOSITORY, 'bin/qwen-supervisor.js');
const PARTS = ['transformer', 'text_encoder'];

let root = '';
let folder = '';
let dataDir = '';
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'qwen-supervisor-full-width-'));
  [folder, dataDir] = [join(root, 'checkpoint'), join(root, 'data')];
  mkdirSync(folder);
  writeQwenImage(folder, writeValues, 4, 2);
}, 600_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const prepared = (name: string, part: string, from = dataDir) => join(from, 'models', name, `${part}.safetensors`);

async function digest(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** The most memory that the process had to itself and mapped, bytes, looked at every 50 ms. */
async function watched(args: string[]): Promise<{ code: number; peakBytes: number; seconds: number; stderr: string }> {
  const main = join(REPOSITORY, 'packages/model/dist/registry/models-main.js');
  const start = performance.now();
  const run = execa(process.execPath, [main, ...args], { reject: false });
  let peak = 0;
  const looking = setInterval(() => {
    const status = existsSync(`/proc/${run.pid}/status`) ? readFileSync(`/proc/${run.pid}/status`, 'utf8') : '';
    peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024);
  }, 50);
  const { exitCode = -1, stderr } = await run;
  clearInterval(looking);
  return { code: exitCode, peakBytes: peak, seconds: (performance.now() - start) / 1000, stderr };
}

const adding = (quantize: string, into: string, more: object = {}) => [
  JSON.stringify({
    do: 'add',
    folder,
    quantize,
    quality: 'standard',
    name: quantize,
    acceptLicense: false,
    memoryBytes: null,
    lightning: null,
    checkOnly: false,
    dataDir: into,
    json: true,
    ...more,
  }),
];

test.each(['int4', 'int8', 'none'])('added in %s, with at most 600 MB resident', async (quantize) => {
  const { code, peakBytes, seconds, stderr } = await watched(adding(quantize, dataDir));
  expect(stderr).not.toContain('error');
  expect(code).toBe(0);
  expect(peakBytes).toBeLessThan(600e6);
  const copied = join(root, 'copy');
  const start = performance.now();
  const bytes = PARTS.reduce((sum, part) => {
    const file = join(
      folder,
      part,
      part === 'transformer' ? 'diffusion_pytorch_model.safetensors' : 'model.safetensors',
    );
    copyFileSync(file, copied);
    return sum + statSync(file).size;
  }, 0);
  const copySeconds = (performance.now() - start) / 1000;
  rmSync(copied);
  const rate = (bytes / seconds / 1e6).toFixed(0);
  console.log(`add ${quantize}: ${seconds.toFixed(1)} s, ${rate} MB/s, ${(peakBytes / 1e6).toFixed(0)} MB resident`);
  console.log(
    `a copy of the same files: ${copySeconds.toFixed(1)} s, ${(copySeconds / seconds).toFixed(2)} of the time`,
  );
});

test(`killed ${KILLS} times at random moments the files are the same bytes`, async () => {
  const war = join(root, 'war');
  let kills = 0;
  while (kills < KILLS) {
    const main = join(REPOSITORY, 'packages/model/dist/registry/models-main.js');
    const child = spawn(process.execPath, [main, ...adding('int4', war)], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    const timer = setTimeout(() => child.kill('SIGKILL'), 400 + Math.random() * 2500);
    await ended;
    clearTimeout(timer);
    if (child.signalCode !== 'SIGKILL') break;
    kills++;
    expect(existsSync(join(war, 'models/int4/model.json'))).toBe(false);
  }
  console.log(`${kills} kills`);
  if (!existsSync(join(war, 'models/int4/model.json'))) expect((await watched(adding('int4', war))).code).toBe(0);
  for (const part of PARTS)
    expect(await digest(prepared('int4', part, war))).toBe(await digest(prepared('int4', part)));
  rmSync(war, { recursive: true });
});

test('four blocks in int8 and int4 are near those in float32', async () => {
  const [tokens, textTokens] = [256, 32];
  const velocities = new Map<string, Float32Array>();
  for (const quantize of ['none', 'int8', 'int4']) {
    const { checkpoint, cacheFolder } = openModel(dataDir, quantize);
    const plan = { ...AMPLE, residentPixels: 0 };
    const sessions = await loadSessions(checkpoint, { cacheFolder, threads: 2, plan });
    const { inChannels, jointAttentionDim } = sessions.architecture.transformer;
    const modulation = (await sessions.modulation.of(0.7)) as Float32Array;
    const parts = (await sessions.transformer(() => false)) as Part[];
    const velocity = new Float32Array(tokens * inChannels);
    const text = gaussianNoise(1, textTokens * jointAttentionDim);
    const pass = new Pass(sessions.architecture, parts, text, 16, 16, velocity);
    await pass.run(new Tensor('float32', gaussianNoise(2, tokens * inChannels), [tokens, inChannels]), modulation);
    velocities.set(quantize, velocity);
    await sessions.release();
  }
  const exact = velocities.get('none') as Float32Array;
  const cosines = ['int8', 'int4'].map((quantize) => cosine(velocities.get(quantize) as Float32Array, exact));
  console.log(`cosine to float32: int8 ${cosines[0]?.toFixed(6)}, int4 ${cosines[1]?.toFixed(5)}`);
  expect(cosines[0]).toBeGreaterThan(0.9999);
  expect(cosines[1]).toBeGreaterThan(0.985);
});

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** The control group of this process for memory (cgroup v1); null where there is none that we may divide. */
function memoryGroup(): string | null {
  const path = /^\d+:memory:(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
  const group = path === undefined ? null : join('/sys/fs/cgroup/memory', path);
  return group && existsSync(join(group, 'memory.limit_in_bytes')) && process.getuid?.() === 0 ? group : null;
}

/** Starts the product in a group of so much memory. */
async function startWithin(bytes: number, port: number) {
  const group = join(memoryGroup() as string, `full-width-${bytes}-${process.pid}`);
  mkdirSync(group);
  writeFileSync(join(group, 'memory.limit_in_bytes'), String(bytes));
  const script = `echo $$ > ${group}/cgroup.procs; exec "$@"`;
  const start = [process.execPath, BIN, 'start', '--port', String(port), '--data-dir', dataDir, '--model', 'int4'];
  const run = execa('sh', ['-c', script, 'sh', ...start], { reject: false, all: true });
  const call = async (path: string, body?: object) => {
    const init = body ? { method: 'POST', body: JSON.stringify(body) } : {};
    return (await fetch(`http://127.0.0.1:${port}${path}`, init)).json() as Promise<never>;
  };
  const end = async () => {
    run.kill('SIGTERM');
    const result = await run;
    rmdirSync(group);
    return result;
  };
  return { run, call, end };
}

interface Status {
  children: { name: string; pid: number; rssBytes: number }[];
  model: { state: string };
}

test.skipIf(memoryGroup() === null)(
  'in 2.5 GiB a picture is drawn in four steps, with the memory that the plan says; killed in a step it resumes there',
  async () => {
    const { call, end } = await startWithin(2.5 * GIB, 18_431);
    const status = () => call('/api/v1/status').catch(() => null) as Promise<Status | null>;
    await until(async () => ((await status())?.model.state === 'ready' ? true : null), MINUTES);
    const worker = async () => (await status())?.children.find(({ name }) => name === 'inference');
    const request = { prompt: 'a fox', seed: 1, width: 512, height: 512, numInferenceSteps: 4, trueCfgScale: 1 };
    const draw = async (onLook: (job: Job) => Promise<void>): Promise<Job> => {
      const { id } = (await call('/api/v1/jobs', request)) as Job;
      return until(async () => {
        const job = (await call(`/api/v1/jobs/${id}`)) as Job;
        if (job.status === 'done' || job.status === 'failed') return job;
        await onLook(job);
        return null;
      }, MINUTES);
    };
    let peak = 0;
    const shares = new Set<number>();
    const first = await draw(async ({ progress }) => {
      shares.add(progress);
      peak = Math.max(peak, (await worker())?.rssBytes ?? 0);
    });
    expect(first.error).toBeNull();
    const asked = ['model', 'plan', 'int4', '--memory', '2.4GiB', '--size', '512x512', '--json', '--data-dir', dataDir];
    const { stages } = JSON.parse((await execa(process.execPath, [BIN, ...asked])).stdout) as PlanReport;
    const planned = Math.max(...stages.map(({ bytes }) => bytes)) + NODE_BYTES;
    console.log(`512x512: ${(peak / 1e9).toFixed(2)} GB private, the plan says ${(planned / 1e9).toFixed(2)} GB`);
    expect(peak).toBeLessThan(1.1 * planned);
    let killed = false;
    const second = await draw(async ({ step }) => {
      const pid = (await worker())?.pid;
      if (step < 2 || killed || !pid) return;
      process.kill(pid, 'SIGKILL');
      killed = true;
    });
    expect(second).toMatchObject({ status: 'done', attempts: 2 });
    expect(second.resumedAtStep).toBeGreaterThanOrEqual(2);
    expect(second.images[0]?.sha256).toBe(first.images[0]?.sha256);
    // Between two parts of the transformer nobody waits longer than for one of them.
    const { id } = (await call('/api/v1/jobs', { ...request, seed: 2 })) as Job;
    const state = async () => (await call(`/api/v1/jobs/${id}`)) as Job;
    await until(async () => ((await state()).step > 0 ? true : null), MINUTES);
    const start = performance.now();
    await call(`/api/v1/jobs/${id}/cancel`, {});
    await until(async () => ((await state()).status === 'cancelled' ? true : null), MINUTES);
    console.log(`cancelled in mid-step after ${((performance.now() - start) / 1000).toFixed(1)} s`);
    await end();
  },
);

test.skipIf(memoryGroup() === null)('in 1 GiB it is refused before anything is loaded', async () => {
  const { run, end } = await startWithin(GIB, 18_432);
  const { exitCode, all } = await run;
  expect(all).toContain('MODEL_TOO_LARGE');
  expect(exitCode).toBe(93);
  await end();
});

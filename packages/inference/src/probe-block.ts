/** What one block of the transformer at Qwen-Image's own width takes on a device, and whether it comes out right. */
import { VERSION } from '@qwen-supervisor/ipc/version';
import { type Compute, narrow } from '@qwen-supervisor/model/layers';
import { CAST_TO, OnnxGraph } from '@qwen-supervisor/model/onnx';
import { syntheticBlock, WIDTHS } from '@qwen-supervisor/model/synthetic-block';
import type { TransformerPart } from '@qwen-supervisor/model/transformer';
import { placeWeights } from '@qwen-supervisor/model/weights';
import type { DeviceAbility } from '@qwen-supervisor/protocol/device';
import { env, InferenceSession, Tensor } from 'onnxruntime-node';
import type { BenchCommand } from './bench-main.js';
import { processorName, threadCount } from './processors.js';
import { abilityOf, difference, providerOf } from './recipe/device.js';
import { blockFeeds, runBlock, TEXT_TOKENS } from './recipe/run-block.js';
import { fromRuntime } from './recipe/runtime-error.js';

/** Of the products that say what the device can do at most, of the tokens of the smallest picture. */
const WIDTH = 3072;
/** Of a card, where what goes over the bus, once, would be most of a single product's time. */
const PRODUCTS_ON_CARD = 20;
/** The fastest of them counts: others may disturb one. */
const RUNS = 3;
/** Tokens at which the device is compared with the processor: few, because the processor computes them as well. */
const COMPARED = 16;

export interface BlockProbe extends DeviceAbility {
  device: string;
  name: string;
  driver: string | null;
  runtime: string;
  /** Operations a second of large products in what the blocks are computed in. */
  peak: number;
  /** Relative difference from the processor's result; null on the processor itself. */
  difference: number | null;
  blocks: { side: number; milliseconds: number; operationsPerSecond: number; residentBytes: number }[];
}

/** @throws CodedError DEVICE_* */
export async function probeBlock(
  { device, name, driver, threads: wanted, sides }: BenchCommand,
  folder: string,
  say: (line: string) => void,
): Promise<BlockProbe> {
  const threads = threadCount(wanted);
  const { refused, ...ability } = await abilityOf(device);
  const runtime = `qwen-supervisor ${VERSION}, onnxruntime ${env.versions.node}, ${processorName()}, ${threads} threads`;
  say(`${device} ${name}${driver === null ? '' : `, ${driver}`}; ${runtime}`);
  const peak = await measurePeak(device, ability.compute, threads, ((sides[0] as number) / 16) ** 2);
  say(
    `attention ${ability.attention}, blocks in ${ability.compute}; large products in it: ${(peak / 1e12).toFixed(2)} TFLOPS`,
  );
  for (const one of refused) say(`not in ${one}`);
  // Rounded to eight bits two devices differ in what they round: exactly they are compared without.
  const difference = device === 'cpu' ? null : await compare(device, ability, threads, folder);
  if (difference !== null) say(`differs from the processor by ${difference.toExponential(1)}`);
  const part = syntheticBlock(folder, 4, ability);
  const session = await open(part, device, threads, folder);
  await run(session, part, COMPARED);
  const blocks: BlockProbe['blocks'] = [];
  for (const side of sides) {
    const tokens = (side / 16) ** 2;
    const feeds = blockFeeds(part, WIDTHS, side / 16);
    // As between two blocks: the image's stream stays where it is.
    const act = () => session.run(feeds, ['nextWords']);
    // On a card the first run of a size is another: it compiles shaders, and takes memory. The processor needs none
    // such, and takes its time.
    if (device !== 'cpu') await act();
    const milliseconds = await fastest(act, device === 'cpu' ? 1 : RUNS);
    const operationsPerSecond = (1000 * operationsOf(tokens)) / milliseconds;
    blocks.push({ side, milliseconds, operationsPerSecond, residentBytes: process.memoryUsage().rss });
    const share = Math.round((100 * operationsPerSecond) / peak);
    const ms = milliseconds.toFixed(milliseconds < 100 ? 1 : 0);
    say(
      `${side}x${side}: ${ms} ms a block, ${(operationsPerSecond / 1e12).toFixed(2)} TFLOPS, ${share} % of the products; ` +
        `60 blocks: ${((60 * milliseconds) / 1000).toFixed(1)} s a pass; ${(process.memoryUsage().rss / 1e9).toFixed(2)} GB of this machine's memory`,
    );
  }
  await session.release();
  return { device, name, driver, runtime, ...ability, peak, difference, blocks };
}

/** Multiplications and additions of a block: its weights, and attention. */
function operationsOf(tokens: number): number {
  const { dim } = WIDTHS;
  // Of each stream: four products for attention, and two of four times the width for the MLP.
  const weights = 12 * dim * dim;
  return 2 * weights * (tokens + TEXT_TOKENS) + 4 * dim * (tokens + TEXT_TOKENS) ** 2;
}

async function compare(device: string, ability: DeviceAbility, threads: number, folder: string): Promise<number> {
  const outputs: Float32Array[] = [];
  const onProcessor = { attention: 'fused', compute: 'float32' } as const;
  for (const [on, how] of [['cpu', onProcessor] as const, [device, ability] as const]) {
    const part = syntheticBlock(folder, 0, how);
    const session = await open(part, on, threads, folder);
    outputs.push(await run(session, part, COMPARED));
    await session.release();
  }
  const [expected, actual] = outputs as [Float32Array, Float32Array];
  return difference(actual, expected);
}

async function open(part: TransformerPart, device: string, threads: number, folder: string): Promise<InferenceSession> {
  const placed = placeWeights(part.graph, folder, () => {});
  try {
    return await InferenceSession.create(placed.model, {
      executionProviders: [providerOf(device)],
      intraOpNumThreads: threads,
      logSeverityLevel: 3,
      extra: { session: { model_external_initializers_file_folder_path: placed.folder } },
    });
  } catch (cause) {
    throw fromRuntime(cause, 'MODEL_LOAD_FAILED', 'one block');
  }
}

function run(session: InferenceSession, part: TransformerPart, tokens: number): Promise<Float32Array> {
  return runBlock(session, part, WIDTHS, Math.ceil(Math.sqrt(tokens)));
}

async function measurePeak(device: string, compute: Compute, threads: number, m: number): Promise<number> {
  const count = device === 'cpu' ? 1 : PRODUCTS_ON_CARD;
  const g = new OnnxGraph('products');
  // The mean of what is multiplied: the values stay as they are.
  const weights = narrow(g, g.floats(new Float32Array(WIDTH ** 2).fill(1 / WIDTH), [WIDTH, WIDTH]), compute);
  let x = narrow(g, g.input('x', ['m', WIDTH]), compute);
  for (let n = 0; n < count; n++) x = g.node('MatMul', [x, weights]);
  const row = g.node('Gather', [x, g.ints([0])], { axis: 0 });
  g.output('y', compute === 'float32' ? row : g.node('Cast', [row], { to: CAST_TO.float32 }), [1, WIDTH]);
  const session = await InferenceSession.create(g.encode(new Map()), {
    executionProviders: [providerOf(device)],
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  });
  const feeds = { x: new Tensor('float32', new Float32Array(m * WIDTH).fill(0.5), [m, WIDTH]) };
  await session.run(feeds);
  const best = await fastest(() => session.run(feeds), RUNS);
  await session.release();
  return (2000 * count * m * WIDTH ** 2) / best;
}

/** Milliseconds. */
async function fastest(act: () => Promise<unknown>, runs: number): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let n = 0; n < runs; n++) {
    const begunMs = performance.now();
    await act();
    best = Math.min(best, performance.now() - begunMs);
  }
  return best;
}

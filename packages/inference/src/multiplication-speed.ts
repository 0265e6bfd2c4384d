/** How fast this machine multiplies with quantised weights of Qwen-Image's own width. */
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { threadCount } from './processors.js';

/** Half of what the widest layer has: with all of it this process would take more memory, and be no faster. */
const [ROWS, COLUMNS, BLOCK] = [6144, 3072, 32];
/** Tokens of a picture of 256 x 256: with many more it gets no faster. */
const TOKENS = 256;
const LEAST_MS = 700;

/** Floating-point operations a second; `threads`: 0 for as many as there are processors. */
export async function multiplicationSpeed(accuracy: 0 | 4, threads: number): Promise<number> {
  const g = new OnnxGraph('probe');
  const blocks = COLUMNS / BLOCK;
  const codes = new Uint8Array((ROWS * COLUMNS) / 2).fill(0x5a);
  const inputs = [
    g.input('x', ['n', COLUMNS]),
    g.bytes(codes, [ROWS, blocks, BLOCK / 2]),
    g.floats(new Float32Array(ROWS * blocks).fill(0.01)),
  ];
  const attributes = { N: ROWS, K: COLUMNS, bits: 4, block_size: BLOCK, accuracy_level: accuracy };
  g.output('y', g.node('MatMulNBits', inputs, attributes, 'com.microsoft'), ['n', ROWS]);
  const session = await InferenceSession.create(g.encode(new Map()), {
    executionProviders: ['cpu'],
    intraOpNumThreads: threadCount(threads),
  });
  const x = new Tensor('float32', new Float32Array(TOKENS * COLUMNS).fill(0.5), [TOKENS, COLUMNS]);
  await session.run({ x });
  const start = performance.now();
  let runs = 0;
  for (; performance.now() - start < LEAST_MS; runs++) await session.run({ x });
  const seconds = (performance.now() - start) / 1000;
  await session.release();
  return (runs * 2 * TOKENS * ROWS * COLUMNS) / seconds;
}

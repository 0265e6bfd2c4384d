import { overTiles, type Planes } from '@qwen-supervisor/inference/recipe/tiles';
import { expect, test } from 'vitest';

const noise = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * i));

/** Each value `scale` by `scale` times: a network that sees one value at a time. */
const enlarge =
  (scale: number) =>
  async ({ values, channels, height, width }: Planes) => {
    const out = new Float32Array(channels * height * scale * width * scale);
    for (let i = 0; i < out.length; i++) {
      const x = Math.floor((i % (width * scale)) / scale);
      const y = Math.floor(Math.floor(i / (width * scale)) / scale);
      out[i] = values[y * width + x] as number;
    }
    return out;
  };

test.each([
  [100, 75, 32, 8, 1],
  [33, 32, 32, 8, 2],
  [20, 90, 32, 16, 4],
  [200, 64, 32, 8, 1],
  [8, 64, 32, 8, 8],
])(
  'over a picture of %i by %i a network without neighbours gives what it gives at once',
  async (height, width, size, overlap, scale) => {
    const input = { values: noise(2 * height * width), channels: 2, height, width };
    let runs = 0;
    const tiled = (await overTiles(
      input,
      { size, overlap, scale },
      (tile) => {
        runs++;
        expect([tile.height, tile.width]).toEqual([Math.min(size, height), Math.min(size, width)]);
        return enlarge(scale)(tile);
      },
      () => false,
    )) as Float32Array;
    const whole = await enlarge(scale)(input);
    expect(runs).toBeGreaterThan(1);
    expect(tiled.length).toBe(whole.length);
    expect(Math.max(...tiled.map((value, i) => Math.abs(value - (whole[i] as number))))).toBeLessThan(1e-6);
  },
);

test('a network that makes its input smaller gives what it gives at once, too', async () => {
  const [height, width, scale] = [80, 152, 1 / 8];
  const input = { values: noise(height * width), channels: 1, height, width };
  const corners = async ({ values, ...tile }: Planes) =>
    Float32Array.from({ length: (tile.height * tile.width) / 64 }, (_, i) => {
      const columns = tile.width / 8;
      return values[8 * Math.floor(i / columns) * tile.width + 8 * (i % columns)] as number;
    });
  const tiled = (await overTiles(input, { size: 64, overlap: 16, scale }, corners, () => false)) as Float32Array;
  const whole = await corners(input);
  expect(tiled.length).toBe(whole.length);
  expect(Math.max(...tiled.map((value, i) => Math.abs(value - (whole[i] as number))))).toBeLessThan(1e-6);
});

test('tiles that differ are blended by a ramp over what they share', async () => {
  let tile = 0;
  const input = { values: new Float32Array(56), channels: 1, height: 1, width: 56 };
  const out = (await overTiles(
    input,
    { size: 32, overlap: 8, scale: 1 },
    async () => new Float32Array(32).fill(tile++),
    () => false,
  )) as Float32Array;
  const ramp = Array.from({ length: 8 }, (_, i) => (i + 0.5) / 8);
  expect(Array.from(out)).toEqual([...Array(24).fill(0), ...ramp, ...Array(24).fill(1)]);
});

test('whoever cancels is heard between two tiles', async () => {
  let runs = 0;
  const input = { values: new Float32Array(64 * 64), channels: 1, height: 64, width: 64 };
  const run = async (tile: Planes) => {
    runs++;
    return tile.values;
  };
  expect(await overTiles(input, { size: 32, overlap: 8, scale: 1 }, run, () => runs === 3)).toBeNull();
  expect(runs).toBe(3);
});

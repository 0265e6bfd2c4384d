/**
 * A network without borders over a picture that is too large for it: run over tiles that overlap, which are blended
 * into each other by linear ramps. Reference: diffusers `AutoencoderKLQwenImage.tiled_decode`; other than there the
 * tiles are all of one size, and spread evenly.
 */

/** Values of `channels` planes, `height` by `width`. */
export interface Planes {
  values: Float32Array;
  channels: number;
  height: number;
  width: number;
}

/** A tile along one side of what comes out: `weights` of its values, from `from` on. */
interface Span {
  from: number;
  weights: Float64Array;
}

/**
 * `run` over tiles of `input`: of `size` by `size` that overlap by at least `overlap`, or as long as the input where
 * that is shorter. What `run` gives is `scale` times as high and wide. Null where `isCancelled` said so between two.
 */
export async function overTiles(
  input: Planes,
  { size, overlap, scale }: { size: number; overlap: number; scale: number },
  run: (tile: Planes) => Promise<Float32Array>,
  isCancelled: () => boolean,
): Promise<Float32Array | null> {
  const [tall, wide] = [Math.min(size, input.height), Math.min(size, input.width)];
  const [height, width] = [scale * input.height, scale * input.width];
  // A network that makes its input smaller takes tiles that begin with a whole value of its output.
  const unit = Math.max(1, 1 / scale);
  const spansOf = (length: number, side: number) => spans(length / unit, side / unit, overlap / unit, unit * scale);
  const [downs, acrosses] = [spansOf(input.height, tall), spansOf(input.width, wide)];
  let out: Float32Array | null = null;
  for (const down of downs) {
    for (const across of acrosses) {
      if (isCancelled()) return null;
      const values = await run(cut(input, down.from / scale, across.from / scale, tall, wide));
      const channels = values.length / (scale * tall * scale * wide);
      out ??= new Float32Array(channels * height * width);
      const tile = { values, channels, height: scale * tall, width: scale * wide };
      blend(tile, out, { height, width }, down, across);
    }
  }
  return out as Float32Array;
}

/** Tiles of `size` over `length`, spread evenly; neighbours are blended over all that they share. */
function spans(length: number, size: number, overlap: number, scale: number): Span[] {
  // Of a side that is no longer than what tiles share there is one.
  const count = length <= size ? 1 : Math.ceil((length - size) / (size - overlap)) + 1;
  const from = Array.from({ length: count }, (_, n) =>
    count === 1 ? 0 : scale * Math.round((n * (length - size)) / (count - 1)),
  );
  const wide = scale * size;
  const all = from.map((start, n) => {
    const before = n === 0 ? 0 : (from[n - 1] as number) + wide - start;
    const after = n === count - 1 ? 0 : start + wide - (from[n + 1] as number);
    return { from: start, weights: ramp(wide, before, after) };
  });
  // Where three meet their ramps do not make one.
  const total = new Float64Array(scale * length);
  for (const { from: start, weights } of all)
    weights.forEach((weight, i) => {
      total[start + i] = (total[start + i] as number) + weight;
    });
  return all.map(({ from: start, weights }) => ({
    from: start,
    weights: weights.map((weight, i) => weight / (total[start + i] as number)),
  }));
}

/** Up to one over `before`, down from one over `after`. */
function ramp(length: number, before: number, after: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => {
    const up = i < before ? (i + 0.5) / before : 1;
    const down = length - 1 - i < after ? (length - 0.5 - i) / after : 1;
    return up * down;
  });
}

function cut({ values, channels, height, width }: Planes, top: number, left: number, tall: number, wide: number) {
  const out = new Float32Array(channels * tall * wide);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < tall; y++) {
      const start = (c * height + top + y) * width + left;
      out.set(values.subarray(start, start + wide), (c * tall + y) * wide);
    }
  }
  return { values: out, channels, height: tall, width: wide };
}

/** Adds a tile, weighted so that the weights of all tiles are one everywhere. */
function blend(tile: Planes, out: Float32Array, to: { height: number; width: number }, down: Span, across: Span): void {
  for (let c = 0; c < tile.channels; c++) {
    for (let y = 0; y < tile.height; y++) {
      const from = (c * tile.height + y) * tile.width;
      const start = (c * to.height + down.from + y) * to.width + across.from;
      const weight = down.weights[y] as number;
      for (let x = 0; x < tile.width; x++) {
        const share = weight * (across.weights[x] as number) * (tile.values[from + x] as number);
        out[start + x] = (out[start + x] as number) + share;
      }
    }
  }
}

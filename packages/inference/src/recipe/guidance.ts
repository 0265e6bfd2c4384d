/**
 * True classifier-free guidance with norm rescale, in place on `positive`.
 *
 * c = n + scale * (p - n); per token of `channels` values: out = c * |p| / |c|. Reference: diffusers
 * `pipeline_qwenimage.py`, denoising loop. Computed in double precision: the differences cancel.
 */
export function guide(positive: Float32Array, negative: Float32Array, scale: number, channels: number): void {
  for (let start = 0; start < positive.length; start += channels) {
    let positiveSquares = 0;
    let combinedSquares = 0;
    for (let i = start; i < start + channels; i++) {
      const p = positive[i] as number;
      const n = negative[i] as number;
      const combined = n + scale * (p - n);
      positiveSquares += p * p;
      combinedSquares += combined * combined;
      positive[i] = combined;
    }
    // Where nothing is predicted there is nothing to rescale.
    const factor = combinedSquares === 0 ? 0 : Math.sqrt(positiveSquares / combinedSquares);
    for (let i = start; i < start + channels; i++) positive[i] = (positive[i] as number) * factor;
  }
}

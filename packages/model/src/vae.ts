/**
 * `AutoencoderKLQwenImage` for one frame as ONNX graphs. Reference: diffusers `autoencoder_kl_qwenimage.py`.
 *
 * With a single frame the causal 3-D convolutions see zeros on all time taps but the last, and the temporal
 * resamplers are skipped: the network is exactly a 2-D one.
 */
import type { VaeConfig } from './architecture.js';
import type { Tensors } from './checkpoint.js';
import { type AttentionKind, attention as attend, silu } from './layers.js';
import { OnnxGraph } from './onnx.js';

/** Pixels per latent side. */
export const VAE_SCALE = 8;

/** Input `latents` [1, zDim, h, w], de-normalised; output `image` [1, 3, 8h, 8w] in [-1, 1]. */
export function buildDecoder(config: VaeConfig, tensors: Tensors, kind: AttentionKind = 'fused'): OnnxGraph {
  const g = new OnnxGraph('vae_decoder');
  const { conv, residual, attention, finish } = blocks(g, tensors, kind);
  const { baseDim, dimMult, numResBlocks, zDim } = config;
  // Widths from the deepest level outwards, the deepest twice.
  const widths = [dimMult.at(-1) as number, ...dimMult.toReversed()].map((factor) => factor * baseDim);

  let x = g.input('latents', [1, zDim, 'h', 'w']);
  x = conv(x, 'post_quant_conv', zDim, zDim, 1);
  x = conv(x, 'decoder.conv_in', zDim, widths[0] as number, 3);
  x = residual(x, 'decoder.mid_block.resnets.0', widths[0] as number, widths[0] as number);
  x = attention(x, 'decoder.mid_block.attentions.0', widths[0] as number);
  x = residual(x, 'decoder.mid_block.resnets.1', widths[0] as number, widths[0] as number);
  dimMult.forEach((_, level) => {
    const out = widths[level + 1] as number;
    // Every upsampler but none before the first level has halved the channels.
    let width = level === 0 ? (widths[0] as number) : Math.floor((widths[level] as number) / 2);
    for (let n = 0; n <= numResBlocks; n++) {
      x = residual(x, `decoder.up_blocks.${level}.resnets.${n}`, width, out);
      width = out;
    }
    if (level < dimMult.length - 1) {
      // At factor two "nearest-exact" is plain repetition.
      x = g.node('Resize', [x, '', g.floats(Float32Array.of(1, 1, 2, 2))], {
        mode: 'nearest',
        coordinate_transformation_mode: 'asymmetric',
        nearest_mode: 'floor',
      });
      x = conv(x, `decoder.up_blocks.${level}.upsamplers.0.resample.1`, out, Math.floor(out / 2), 3, { flat: true });
    }
  });
  x = finish(x, 'decoder', widths.at(-1) as number, config.inputChannels);
  g.output('image', g.node('Clip', [x, g.scalar(-1), g.scalar(1)]), [1, config.inputChannels, 'H', 'W']);
  return g;
}

/**
 * Input `image` [1, 3, H, W] in [-1, 1]; output `mean` [1, zDim, H/8, W/8] of the latent distribution, not
 * normalised.
 */
export function buildEncoder(config: VaeConfig, tensors: Tensors, kind: AttentionKind = 'fused'): OnnxGraph {
  const g = new OnnxGraph('vae_encoder');
  const { conv, residual, attention, finish } = blocks(g, tensors, kind);
  const { baseDim, dimMult, numResBlocks, zDim, attnScales } = config;

  let x = g.input('image', [1, config.inputChannels, 'H', 'W']);
  let width = baseDim;
  let index = 0;
  x = conv(x, 'encoder.conv_in', config.inputChannels, width, 3);
  dimMult.forEach((factor, level) => {
    const out = factor * baseDim;
    for (let n = 0; n < numResBlocks; n++) {
      x = residual(x, `encoder.down_blocks.${index++}`, width, out);
      if (attnScales.includes(1 / 2 ** level)) x = attention(x, `encoder.down_blocks.${index++}`, out);
      width = out;
    }
    if (level < dimMult.length - 1) {
      // Zeros to the right and below only.
      const name = `encoder.down_blocks.${index++}.resample.1`;
      x = conv(x, name, out, out, 3, { flat: true, stride: 2, pads: [0, 0, 1, 1] });
    }
  });
  x = residual(x, 'encoder.mid_block.resnets.0', width, width);
  x = attention(x, 'encoder.mid_block.attentions.0', width);
  x = residual(x, 'encoder.mid_block.resnets.1', width, width);
  x = finish(x, 'encoder', width, 2 * zDim);
  x = conv(x, 'quant_conv', 2 * zDim, 2 * zDim, 1);
  const mean = g.node('Slice', [x, g.ints([0]), g.ints([zDim]), g.ints([1])]);
  g.output('mean', mean, [1, zDim, 'h', 'w']);
  return g;
}

/** The layers that encoder and decoder are made of. */
function blocks(g: OnnxGraph, tensors: Tensors, kind: AttentionKind) {
  const conv = (
    x: string,
    name: string,
    from: number,
    to: number,
    kernel: number,
    options: { flat?: boolean; stride?: number; pads?: number[] } = {},
  ) => {
    const flat = [to, from, kernel, kernel];
    const shape = options.flat ? flat : [to, from, kernel, kernel, kernel];
    const weight = g.weight(tensors.get(`${name}.weight`, shape), { dims: flat, lastTap: !options.flat });
    const pad = (kernel - 1) / 2;
    return g.node('Conv', [x, weight, g.weight(tensors.get(`${name}.bias`, [to]))], {
      kernel_shape: [kernel, kernel],
      strides: [options.stride ?? 1, options.stride ?? 1],
      pads: options.pads ?? [pad, pad, pad, pad],
    });
  };
  /** L2 normalisation over channels, times sqrt(channels) and gamma: the same as an RMS norm. */
  const norm = (x: string, name: string, width: number, gammaShape: number[]) => {
    const gamma = g.weight(tensors.get(`${name}.gamma`, gammaShape), { dims: [1, width, 1, 1] });
    const square = g.node('ReduceMean', [g.node('Mul', [x, x]), g.ints([1])], { keepdims: 1 });
    const rms = g.node('Max', [g.node('Sqrt', [square]), g.scalar(1e-12 / Math.sqrt(width))]);
    return g.node('Mul', [g.node('Div', [x, rms]), gamma]);
  };
  const normSilu = (x: string, name: string, width: number) => silu(g, norm(x, name, width, [width, 1, 1, 1]));

  const residual = (x: string, name: string, from: number, to: number) => {
    const shortcut = from === to ? x : conv(x, `${name}.conv_shortcut`, from, to, 1);
    const h = conv(normSilu(x, `${name}.norm1`, from), `${name}.conv1`, from, to, 3);
    return g.node('Add', [conv(normSilu(h, `${name}.norm2`, to), `${name}.conv2`, to, to, 3), shortcut]);
  };
  /** Self-attention over all positions, one head as wide as the channels. */
  const attention = (x: string, name: string, width: number) => {
    const qkv = conv(norm(x, `${name}.norm`, width, [width, 1, 1]), `${name}.to_qkv`, width, 3 * width, 1, {
      flat: true,
    });
    const tokens = g.node('Transpose', [g.node('Reshape', [qkv, g.ints([0, 0, -1])])], { perm: [0, 2, 1] });
    const [q, k, v] = g.nodes('Split', [tokens], 3, { axis: 2, num_outputs: 3 }) as [string, string, string];
    const mixed = attend(g, [q, k, v], { heads: 1, headDim: width, kind });
    const back = g.node('Reshape', [g.node('Transpose', [mixed], { perm: [0, 2, 1] }), g.node('Shape', [x])]);
    return g.node('Add', [conv(back, `${name}.proj`, width, width, 1, { flat: true }), x]);
  };
  const finish = (x: string, side: 'encoder' | 'decoder', width: number, to: number) =>
    conv(normSilu(x, `${side}.norm_out`, width), `${side}.conv_out`, width, to, 3);
  return { conv, residual, attention, finish };
}

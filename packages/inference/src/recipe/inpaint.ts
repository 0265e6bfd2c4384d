/**
 * Drawing parts of a picture anew: after every step the latents of the other parts are put back as that step would
 * have left them. Reference: diffusers `pipeline_qwenimage_inpaint.py`.
 */

/** Pixels of a latent, and of a token, along a side. */
const LATENT = 8;
const TOKEN = 16;

export interface LatentMask {
  /** Per token and corner (dy * 2 + dx) of its patch: 1 is drawn anew. */
  anew: Uint8Array;
  /** Packed latents of the picture, [tokens, channels * 4]. */
  clean: Float32Array;
  noise: Float32Array;
}

/**
 * A mask of width * height bytes at the resolution of the latents: whatever has a pixel that is more white than black
 * is drawn anew, so that none is left out. The reference takes the nearest pixel.
 */
export function latentMask(mask: Uint8Array, width: number, height: number): Pick<LatentMask, 'anew'> {
  const columns = width / TOKEN;
  const anew = new Uint8Array((width / LATENT) * (height / LATENT));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if ((mask[y * width + x] as number) < 128) continue;
      const token = Math.floor(y / TOKEN) * columns + Math.floor(x / TOKEN);
      const corner = (Math.floor(y / LATENT) % 2) * 2 + (Math.floor(x / LATENT) % 2);
      anew[token * 4 + corner] = 1;
    }
  }
  return { anew };
}

/** Puts back, in place, what is not drawn anew, under the noise of `sigma`. Feature c * 4 + corner, as packed. */
export function keepUnmasked(latents: Float32Array, { anew, clean, noise }: LatentMask, sigma: number): void {
  const features = (4 * latents.length) / anew.length;
  for (let i = 0; i < latents.length; i++) {
    const token = Math.floor(i / features);
    if (anew[token * 4 + (i % 4)] === 1) continue;
    latents[i] = sigma * (noise[i] as number) + (1 - sigma) * (clean[i] as number);
  }
}

/** The picture's own pixels where the mask is black, and a mixture where it is grey; in place on `pixels`, RGBRGB…. */
export function pasteUnmasked(pixels: Uint8Array, original: Uint8Array, mask: Uint8Array): void {
  for (let i = 0; i < pixels.length; i++) {
    const share = (mask[Math.floor(i / 3)] as number) / 255;
    pixels[i] = Math.round(share * (pixels[i] as number) + (1 - share) * (original[i] as number));
  }
}

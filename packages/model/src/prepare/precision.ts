/**
 * How exactly each weight is kept. Sensitive layers are known from those who quantised this model before: ComfyUI-GGUF
 * #347 and #370 (first and last block), vllm-omni #1034 and #2795 (image MLP, projections at both ends).
 */
import type { WeightComponent } from '../checkpoint.js';

export type Precision = 'int4' | 'int8' | 'float32';
/** What the weights are prepared for, as the operator chooses. */
export type Quantisation = 'int4' | 'int8' | 'none';

/**
 * The precision of a weight by its canonical name: linear layers of the blocks as chosen, all others in float32; they
 * are a hundredth of the model.
 * @param numLayers blocks of the component
 */
export function precisionOf(
  component: WeightComponent,
  name: string,
  chosen: Quantisation,
  numLayers: number,
): Precision {
  const [, index, layer = ''] = /^(?:transformer_blocks|layers)\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  if (chosen === 'none' || component === 'vae' || index === undefined || /norm/.test(layer)) return 'float32';
  if (component === 'text_encoder' || chosen === 'int8') return 'int8';
  const atAnEnd = Number(index) === 0 || Number(index) === numLayers - 1;
  return atAnEnd || layer === 'img_mlp.net.2' ? 'int8' : 'int4';
}

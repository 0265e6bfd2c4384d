/**
 * All graphs of a checkpoint, and the table that stays outside of them. Building them checks that every tensor is
 * there, in the shape that the configs ask for.
 */
import type { Checkpoint } from './checkpoint.js';
import type { OnnxGraph } from './onnx.js';
import type { TensorEntry } from './safetensors.js';
import { buildTextEncoder } from './text-encoder.js';
import { buildModulation, buildTransformer } from './transformer.js';
import { buildDecoder, buildEncoder } from './vae.js';

export interface Graphs {
  /** Token embeddings [vocabulary, hidden], read row by row. */
  embeddings: TensorEntry;
  textEncoder: OnnxGraph;
  modulation: OnnxGraph;
  transformer: OnnxGraph;
  decoder: OnnxGraph;
  encoder: OnnxGraph;
}

/** @throws CodedError MODEL_INVALID, naming the tensor */
export function buildGraphs({ architecture, tensors }: Checkpoint): Graphs {
  const { vocabSize, hiddenSize } = architecture.textEncoder;
  return {
    embeddings: tensors.text_encoder.get('embed_tokens.weight', [vocabSize, hiddenSize]),
    textEncoder: buildTextEncoder(architecture.textEncoder, tensors.text_encoder),
    modulation: buildModulation(architecture.transformer, tensors.transformer),
    transformer: buildTransformer(architecture.transformer, tensors.transformer),
    decoder: buildDecoder(architecture.vae, tensors.vae),
    encoder: buildEncoder(architecture.vae, tensors.vae),
  };
}

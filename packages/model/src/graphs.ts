/** All graphs of a checkpoint. Building them checks that every tensor is there, in the shape that the configs ask for. */
import type { Checkpoint } from './checkpoint.js';
import type { OnnxGraph } from './onnx.js';
import { buildTextEncoder } from './text-encoder.js';
import { buildModulation, buildTransformer } from './transformer.js';
import { buildDecoder, buildEncoder } from './vae.js';

export interface Graphs {
  textEncoder: OnnxGraph;
  modulation: OnnxGraph;
  transformer: OnnxGraph;
  decoder: OnnxGraph;
  encoder: OnnxGraph;
}

/** @throws CodedError MODEL_INVALID, naming the tensor */
export function buildGraphs({ architecture, tensors }: Checkpoint): Graphs {
  return {
    textEncoder: buildTextEncoder(architecture.textEncoder, tensors.text_encoder),
    modulation: buildModulation(architecture.transformer, tensors.transformer),
    transformer: buildTransformer(architecture.transformer, tensors.transformer),
    decoder: buildDecoder(architecture.vae, tensors.vae),
    encoder: buildEncoder(architecture.vae, tensors.vae),
  };
}

/**
 * All graphs of a checkpoint, and what stays outside of them. Building them checks that every tensor is there, in the
 * shape that the configs ask for.
 */
import type { Checkpoint } from './checkpoint.js';
import type { Accuracy, AttentionKind, Compute } from './layers.js';
import type { OnnxGraph } from './onnx.js';
import type { TensorEntry } from './safetensors.js';
import { buildTextEncoder } from './text-encoder.js';
import { buildTransformer, type ModulationLayers, modulationLayers, type TransformerPart } from './transformer.js';
import { buildDecoder, buildEncoder } from './vae.js';

export interface Graphs {
  /** Token embeddings [vocabulary, hidden], read row by row. */
  embeddings: TensorEntry;
  textEncoder: OnnxGraph;
  modulation: ModulationLayers;
  transformer: TransformerPart[];
  decoder: OnnxGraph;
  encoder: OnnxGraph;
}

/** How the graphs are cut and computed; left out, as a processor computes them best. */
export interface GraphOptions {
  accuracy?: Accuracy;
  blocksPerPart?: number | undefined;
  /** Of transformer and VAE. */
  attention?: AttentionKind;
  /** Within the blocks of the transformer; all else is float32. */
  compute?: Compute;
}

/** Whether weights of it are quantised: a card takes them as they lie in the file. */
export function hasCodes({ weights }: OnnxGraph): boolean {
  return weights.some(({ type }) => type === 'uint8');
}

/** @throws CodedError MODEL_INVALID, naming the tensor */
export function buildGraphs(
  { architecture, tensors, lightning }: Checkpoint,
  { accuracy = 4, blocksPerPart, attention = 'fused', compute = 'float32' }: GraphOptions = {},
): Graphs {
  const { vocabSize, hiddenSize } = architecture.textEncoder;
  return {
    embeddings: tensors.text_encoder.get('embed_tokens.weight', [vocabSize, hiddenSize]),
    textEncoder: buildTextEncoder(architecture.textEncoder, tensors.text_encoder, accuracy),
    modulation: modulationLayers(architecture.transformer, tensors.transformer, lightning?.layers ?? new Map()),
    transformer: buildTransformer(architecture.transformer, tensors.transformer, accuracy, {
      blocksPerPart,
      kind: attention,
      compute,
    }),
    decoder: buildDecoder(architecture.vae, tensors.vae, attention),
    encoder: buildEncoder(architecture.vae, tensors.vae, attention),
  };
}

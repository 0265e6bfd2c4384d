/**
 * What was run on WebGPU without a node on the processor, and what ONNX Runtime's CUDA provider has kernels for. Of a
 * Gelu it makes a FastGelu.
 */
export const ON_CARDS = [
  ...['Add', 'Concat', 'FastGelu', 'Gelu', 'Gemm', 'Identity', 'LayerNormalization', 'MatMul', 'MatMulNBits', 'Mul'],
  ...['MultiHeadAttention', 'Reshape', 'RotaryEmbedding', 'Shape', 'Sigmoid', 'SimplifiedLayerNormalization', 'Slice'],
  ...['Softmax', 'Split', 'Squeeze', 'Tanh', 'Transpose', 'Unsqueeze'],
];

/**
 * The packages of CUDA's libraries: Python wheels, which are ZIP files, each of one version and content. Of them the
 * libraries are taken that ONNX Runtime's CUDA provider asks for; the driver's own are the machine's.
 */

export interface Wheel {
  /** Of the Python package, and its version. */
  name: string;
  version: string;
  file: string;
  sha256: string;
  /** Of the file. */
  bytes: number;
  /** Paths in it that are taken, with the bytes that they unpack to. */
  members: Record<string, number>;
}

/** Those of cuDNN are found by each other, at run time. */
const CUDNN: Record<string, number> = {
  'libcudnn.so.9': 137432,
  'libcudnn_adv.so.9': 92392360,
  'libcudnn_cnn.so.9': 4204144,
  'libcudnn_engines_precompiled.so.9': 260072128,
  'libcudnn_engines_runtime_compiled.so.9': 41978752,
  'libcudnn_engines_tensor_ir.so.9': 249581552,
  'libcudnn_ext.so.9': 10492592,
  'libcudnn_graph.so.9': 149118552,
  'libcudnn_heuristic.so.9': 96473968,
  'libcudnn_ops.so.9': 35661648,
};

/** The provider is of the same build as npm's onnxruntime-node 1.30.0: commit f2c39fe2f, CUDA 13.0. */
export const WHEELS: Wheel[] = [
  {
    name: 'onnxruntime-gpu',
    version: '1.30.0',
    file: 'onnxruntime_gpu-1.30.0-cp312-cp312-manylinux_2_28_x86_64.whl',
    sha256: '6acc0f4b3d5ac5f2984432faa59dd8fcce6775f8b43a7140afa0f322c7a703b1',
    bytes: 246685715,
    members: {
      'onnxruntime/capi/libonnxruntime_providers_cuda.so': 272049904,
      'onnxruntime/capi/libonnxruntime_providers_shared.so': 14632,
    },
  },
  {
    name: 'nvidia-cublas',
    version: '13.10.0.20',
    file: 'nvidia_cublas-13.10.0.20-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl',
    sha256: 'dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84',
    bytes: 444289903,
    members: { 'nvidia/cu13/lib/libcublas.so.13': 57282152, 'nvidia/cu13/lib/libcublasLt.so.13': 551653208 },
  },
  {
    name: 'nvidia-cuda-runtime',
    version: '13.0.96',
    file: 'nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl',
    sha256: '7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548',
    bytes: 2243632,
    members: { 'nvidia/cu13/lib/libcudart.so.13': 704288 },
  },
  {
    name: 'nvidia-curand',
    version: '10.4.5.25',
    file: 'nvidia_curand-10.4.5.25-py3-none-manylinux_2_27_x86_64.whl',
    sha256: '22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529',
    bytes: 77113015,
    members: { 'nvidia/cu13/lib/libcurand.so.10': 104860296 },
  },
  {
    name: 'nvidia-cudnn-cu13',
    version: '9.28.1.4',
    file: 'nvidia_cudnn_cu13-9.28.1.4-py3-none-manylinux_2_27_x86_64.whl',
    sha256: 'a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec',
    bytes: 516817937,
    members: Object.fromEntries(Object.entries(CUDNN).map(([name, bytes]) => [`nvidia/cudnn/lib/${name}`, bytes])),
  },
];

/**
 * Writes ONNX models: a graph builder and the few protobuf messages that it needs.
 * Field numbers: onnx.proto3 of ONNX 1.18 (IR version 11). Weights are referenced by file, offset and length.
 */
import type { TensorEntry } from './safetensors.js';

const IR_VERSION = 11;
const OPSET = 23;
/** Domain of ONNX Runtime's fused operators. */
export const MICROSOFT = 'com.microsoft';

const TYPE = { float32: 1, uint8: 2, int64: 7 } as const;
type ElementType = keyof typeof TYPE;
/** What values within a graph may be cast to; inputs, outputs and weights are of the types above. */
export const CAST_TO = { float32: 1, float16: 10, bfloat16: 16 } as const;

type Attribute = number | string | number[] | { float: number };

interface Node {
  op: string;
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Record<string, Attribute>;
}

interface Value {
  name: string;
  type: ElementType;
  /** A text is a dimension known at run time only. */
  dims: (number | string)[];
}

interface Constant {
  name: string;
  type: ElementType;
  dims: number[];
  bytes: Uint8Array;
}

/** A weight of the checkpoint, as the graph needs it. */
export interface Weight {
  name: string;
  tensor: TensorEntry;
  /** Quantised weights are codes (uint8) beside their scales; all others are computed with in float32. */
  type: 'float32' | 'uint8';
  /** Shape in the graph. */
  dims: number[];
  /**
   * Of a causal 3-D kernel [out, in, t, h, w] only the last time tap: with a single frame the others see zeros.
   */
  lastTap: boolean;
}

/** Where a weight's data lies, relative to the folder that the session is given. */
export interface Placement {
  location: string;
  offset: number;
  length: number;
}

/** Builds a graph node by node. Methods return the name of the value that they make. */
export class OnnxGraph {
  readonly name: string;
  readonly weights: Weight[] = [];
  readonly #nodes: Node[] = [];
  readonly #constants = new Map<string, Constant>();
  readonly #inputs: Value[] = [];
  readonly #outputs: Value[] = [];
  #counter = 0;

  constructor(name: string) {
    this.name = name;
  }

  input(name: string, dims: (number | string)[]): string {
    this.#inputs.push({ name, type: 'float32', dims });
    return name;
  }

  /** Declares `value` as the graph's output `name`. */
  output(name: string, value: string, dims: (number | string)[]): void {
    this.#nodes.push({ op: 'Identity', domain: '', inputs: [value], outputs: [name], attributes: {} });
    this.#outputs.push({ name, type: 'float32', dims });
  }

  node(op: string, inputs: string[], attributes: Record<string, Attribute> = {}, domain = ''): string {
    return this.nodes(op, inputs, 1, attributes, domain)[0] as string;
  }

  /** A node of several outputs. An empty input name leaves an optional input out. */
  nodes(
    op: string,
    inputs: string[],
    count: number,
    attributes: Record<string, Attribute> = {},
    domain = '',
  ): string[] {
    const outputs = Array.from({ length: count }, () => `${op}_${this.#counter++}`);
    this.#nodes.push({ op, domain, inputs, outputs, attributes });
    return outputs;
  }

  weight(tensor: TensorEntry, options: { dims?: number[]; lastTap?: boolean } = {}): string {
    this.weights.push({
      name: tensor.name,
      tensor,
      type: tensor.dtype === 'U8' ? 'uint8' : 'float32',
      dims: options.dims ?? tensor.shape,
      lastTap: options.lastTap ?? false,
    });
    return tensor.name;
  }

  floats(values: Float32Array, dims: number[] = [values.length]): string {
    return this.#constant('float32', dims, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  bytes(values: Uint8Array, dims: number[]): string {
    return this.#constant('uint8', dims, values);
  }

  scalar(value: number): string {
    return this.floats(Float32Array.of(value), []);
  }

  ints(values: number[]): string {
    const data = BigInt64Array.from(values, BigInt);
    return this.#constant('int64', [values.length], new Uint8Array(data.buffer));
  }

  #constant(type: ElementType, dims: number[], bytes: Uint8Array): string {
    const key = `${type}[${dims}]:${Buffer.from(bytes).toString('base64')}`;
    const known = this.#constants.get(key);
    if (known) return known.name;
    const name = `constant_${this.#constants.size}`;
    this.#constants.set(key, { name, type, dims, bytes });
    return name;
  }

  /** The serialised model. `placements` names the place of every weight. */
  encode(placements: Map<string, Placement>): Uint8Array {
    const graph = [
      ...this.#nodes.map((node) => field(1, encodeNode(node))),
      field(2, text(this.name)),
      ...[...this.#constants.values()].map((constant) => field(5, encodeConstant(constant))),
      ...this.weights.map((weight) => field(5, encodeWeight(weight, placements.get(weight.name)))),
      ...this.#inputs.map((value) => field(11, encodeValue(value))),
      ...this.#outputs.map((value) => field(12, encodeValue(value))),
    ];
    return Buffer.concat([
      integer(1, IR_VERSION),
      field(2, text('qwen-supervisor')),
      field(7, Buffer.concat(graph)),
      field(8, Buffer.concat([field(1, text('')), integer(2, OPSET)])),
      field(8, Buffer.concat([field(1, text(MICROSOFT)), integer(2, 1)])),
    ]);
  }
}

function encodeNode(node: Node): Buffer {
  return Buffer.concat([
    ...node.inputs.map((name) => field(1, text(name))),
    ...node.outputs.map((name) => field(2, text(name))),
    field(3, text(node.outputs[0] as string)),
    field(4, text(node.op)),
    ...Object.entries(node.attributes).map(([name, value]) => field(5, encodeAttribute(name, value))),
    field(7, text(node.domain)),
  ]);
}

function encodeAttribute(name: string, value: Attribute): Buffer {
  const head = field(1, text(name));
  if (typeof value === 'number') return Buffer.concat([head, integer(3, value), integer(20, 2)]);
  if (typeof value === 'string') return Buffer.concat([head, field(4, text(value)), integer(20, 3)]);
  if (Array.isArray(value)) return Buffer.concat([head, ...value.map((n) => integer(8, n)), integer(20, 7)]);
  const float = Buffer.alloc(4);
  float.writeFloatLE(value.float);
  return Buffer.concat([head, varint((2 << 3) | 5), float, integer(20, 1)]);
}

function encodeConstant(constant: Constant): Buffer {
  return Buffer.concat([
    ...constant.dims.map((side) => integer(1, side)),
    integer(2, TYPE[constant.type]),
    field(8, text(constant.name)),
    field(9, constant.bytes),
  ]);
}

function encodeWeight(weight: Weight, placement: Placement | undefined): Buffer {
  if (!placement) throw new Error(`no place for weight ${weight.name}`);
  const entry = (key: string, value: string) => field(13, Buffer.concat([field(1, text(key)), field(2, text(value))]));
  return Buffer.concat([
    ...weight.dims.map((side) => integer(1, side)),
    integer(2, TYPE[weight.type]),
    field(8, text(weight.name)),
    entry('location', placement.location),
    entry('offset', String(placement.offset)),
    entry('length', String(placement.length)),
    integer(14, 1),
  ]);
}

function encodeValue(value: Value): Buffer {
  const dims = value.dims.map((side) => field(1, typeof side === 'number' ? integer(1, side) : field(2, text(side))));
  const tensor = Buffer.concat([integer(1, TYPE[value.type]), field(2, Buffer.concat(dims))]);
  return Buffer.concat([field(1, text(value.name)), field(2, field(1, tensor))]);
}

function text(value: string): Buffer {
  return Buffer.from(value, 'utf8');
}

/** A length-delimited field. */
function field(number: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}

/** A varint field; negative values take ten bytes, as protobuf's int64 does. */
function integer(number: number, value: number): Buffer {
  return Buffer.concat([varint(number << 3), varint(value)]);
}

function varint(value: number): Buffer {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 127n);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 128 : low);
  } while (rest > 0n);
  return Buffer.from(bytes);
}

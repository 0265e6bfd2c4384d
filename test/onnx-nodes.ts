/** The nodes of a serialised ONNX model. Reference: onnx.proto; protocol-buffers encoding. */

export interface OnnxNode {
  op: string;
  /** Names of the values that it takes. */
  from: string[];
  /** Names of those that it gives. */
  to: string[];
  inputs: number;
  outputs: number;
}

const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const NODE = { input: 1, output: 2, op: 4 } as const;

export function nodesOf(model: Uint8Array): OnnxNode[] {
  const [graph] = [...fields(model)].filter(({ number }) => number === MODEL_GRAPH);
  return [...fields(graph?.bytes ?? new Uint8Array())]
    .filter(({ number }) => number === GRAPH_NODE)
    .map(({ bytes }) => {
      const own = [...fields(bytes)];
      const texts = (wanted: number) =>
        own.filter(({ number }) => number === wanted).map(({ bytes: name }) => Buffer.from(name).toString());
      const [from, to, [op = '']] = [texts(NODE.input), texts(NODE.output), texts(NODE.op)];
      return { op, from, to, inputs: from.length, outputs: to.length };
    });
}

/** Fields of a message; those that are no bytes are passed over. */
function* fields(bytes: Uint8Array): Generator<{ number: number; bytes: Uint8Array }> {
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = bytes[at++] as number;
      value += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else {
      const length = varint();
      yield { number: Math.floor(tag / 8), bytes: bytes.subarray(at, at + length) };
      at += length;
    }
  }
}

/** Entry of `qwen-supervisor model check`, a process of its own: the command line never loads ONNX Runtime. */
import { openModel } from '@qwen-supervisor/model/registry/open-model';
import { CodedError, ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { checkModel, type TensorCheck } from './model-check.js';
import { threadCount } from './processors.js';
import { AMPLE, loadSessions } from './recipe/sessions.js';

const [target, golden, dataDir, json] = process.argv.slice(2) as [string, string, string, string];

try {
  const { checkpoint, cacheFolder } = openModel(dataDir, target);
  const sessions = await loadSessions(checkpoint, { cacheFolder, threads: threadCount(0), plan: AMPLE });
  const tensors: TensorCheck[] = [];
  const notCompared = await checkModel(checkpoint, sessions, golden, (check) => {
    tensors.push(check);
    if (json !== 'json') console.log(harmless(describe(check)));
  });
  const bad = tensors.filter((check) => !check.ok).map((check) => check.tensor);
  if (json === 'json') console.log(JSON.stringify({ ok: bad.length === 0, tensors, notCompared }));
  else {
    console.log(`${tensors.length - bad.length} within their limit, ${bad.length} beyond`);
    for (const file of notCompared) console.log(harmless(`not compared: ${file} is not in ${golden}`));
  }
  if (bad.length > 0) throw new CodedError('GOLDEN_MISMATCH', `beyond the limit: ${bad.join(', ')}`);
} catch (error) {
  const coded = toCodedError(error);
  console.error(harmless(`error ${coded.code}: ${coded.message}\nhint: ${coded.hint}`));
  process.exitCode = ERRORS[coded.code].exit;
}

function describe({ tensor, relativeError, limit, ok }: TensorCheck): string {
  const error = relativeError === null ? 'not a number' : relativeError.toExponential(2);
  return `${ok ? 'ok    ' : 'BEYOND'}  ${tensor.padEnd(44)} ${error.padStart(12)}  limit ${limit}`;
}

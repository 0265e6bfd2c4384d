/** Entry of `qwen-supervisor model plan`, a process of its own: the command line never loads ONNX Runtime. */
import { planLines, type Speeds } from '@qwen-supervisor/model/plan/report';
import { type PlanQuestion, planOf } from '@qwen-supervisor/model/registry/plan-of';
import { ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { keptProbe } from './kept-probes.js';
import { fromRuntime } from './recipe/runtime-error.js';
import { requireRuntimeLibraries } from './runtime-libraries.js';

const question = JSON.parse(process.argv[2] ?? '{}') as PlanQuestion & { threads: number; json: boolean };

try {
  const report = await planOf(question, async (): Promise<Speeds> => {
    // On a card it takes a minute: it was measured before, or is not known.
    if (question.device !== 'cpu')
      return {
        of: 'card',
        bySide: keptProbe(question.dataDir, question, question.card?.compute ?? null)?.blocks ?? [],
      };
    await requireRuntimeLibraries();
    const { multiplicationSpeed } = await import('./multiplication-speed.js');
    const speed = (accuracy: 0 | 4) =>
      multiplicationSpeed(accuracy, question.threads).catch((error: unknown) => {
        throw fromRuntime(error, 'INFERENCE_FAILED', 'a multiplication, to see how fast it is');
      });
    return { of: 'processor', byAccuracy: { 0: await speed(0), 4: await speed(4) } };
  });
  console.log(question.json ? JSON.stringify(report) : harmless(planLines(report).join('\n')));
  if (!report.fits) process.exitCode = ERRORS.MODEL_TOO_LARGE.exit;
} catch (error) {
  const coded = toCodedError(error);
  console.error(harmless(`error ${coded.code}: ${coded.message}\nhint: ${coded.hint}`));
  process.exitCode = ERRORS[coded.code].exit;
}

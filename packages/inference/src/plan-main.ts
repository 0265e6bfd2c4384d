/** Entry of `qwen-supervisor model plan`, a process of its own: the command line never loads ONNX Runtime. */
import { planLines } from '@qwen-supervisor/model/plan/report';
import { type PlanQuestion, planOf } from '@qwen-supervisor/model/registry/plan-of';
import { ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { requireRuntimeLibraries } from './runtime-libraries.js';

const question = JSON.parse(process.argv[2] ?? '{}') as PlanQuestion & { threads: number; json: boolean };

try {
  const report = await planOf(question, async () => {
    await requireRuntimeLibraries();
    const { multiplicationSpeed } = await import('./multiplication-speed.js');
    return { 0: await multiplicationSpeed(0, question.threads), 4: await multiplicationSpeed(4, question.threads) };
  });
  console.log(question.json ? JSON.stringify(report) : harmless(planLines(report).join('\n')));
  if (!report.fits) process.exitCode = ERRORS.MODEL_TOO_LARGE.exit;
} catch (error) {
  const coded = toCodedError(error);
  console.error(harmless(`error ${coded.code}: ${coded.message}\nhint: ${coded.hint}`));
  process.exitCode = ERRORS[coded.code].exit;
}

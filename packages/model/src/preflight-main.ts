/**
 * Entry of the look at a checkpoint before it is loaded: a process of its own, because whoever asks must not stand
 * still with a disk that does not answer. Prints one JSON object.
 */
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import { describeModel } from './descriptions.js';
import { buildGraphs } from './graphs.js';
import { costsOf } from './plan/costs.js';
import { availableMemory } from './plan/memory.js';
import { leastMemory, planModel } from './plan/plan.js';
import type { PreflightAnswer, PreflightQuestion } from './preflight.js';
import { openModel } from './registry/open-model.js';

process.stdout.write(JSON.stringify(look(JSON.parse(process.argv[2] ?? '{}') as PreflightQuestion)));

function look({ target, dataDir, memoryBytes, heldBytes, sharers, card }: PreflightQuestion): PreflightAnswer {
  try {
    const { checkpoint, name, registration } = openModel(dataDir, target);
    const { architecture } = checkpoint;
    // Building checks that every tensor is there, in the shape that the configs ask for.
    const costs = costsOf(architecture, buildGraphs(checkpoint), 'none');
    const description = describeModel(checkpoint, name);
    const { width, height } = description.defaults;
    const available = memoryBytes ?? Math.max(0, Math.floor((availableMemory() + heldBytes) / sharers));
    const plan = planModel(costs, { machineBytes: available, card }, width * height);
    if (plan) return { model: { ...description, plan } };
    const called = registration?.name ?? description.id;
    const least = leastMemory(costs, card);
    const ofCard = least.machine <= available ? (card?.bytes ?? null) : null;
    const [needed, there] = ofCard === null ? [least.machine, available] : [least.card as number, ofCard];
    const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
    const text = `${called}: needs ${gb(needed)} of ${ofCard === null ? '' : "the card's "}memory, and there are ${gb(there)} for it`;
    throw new CodedError('MODEL_TOO_LARGE', text);
  } catch (error) {
    return { error: toCodedError(error).toObject() };
  }
}

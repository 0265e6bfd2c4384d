/**
 * A1111's syntax within prompts, which is none of Qwen-Image's: a model that draws text would draw it. Clients and
 * saved prompts carry it along, so that it is taken out, and said.
 */

import { PROMPT_MAX } from '@qwen-supervisor/protocol/job-request';

/** Networks by name: `<lora:detail:0.8>`. */
const NETWORK = /<\s{0,5}(lora|lyco|hypernet|embedding)\s{0,5}:[^<>]{1,500}>/gi;
/** Words with a weight: `(red fox:1.3)`. */
const WEIGHTED = /\(([^():]{1,500}):\s{0,5}\d{1,3}(?:\.\d{1,6})?\s{0,5}\)/g;
/** The end of one chunk of 75 tokens. */
const BREAK = /(?<!\s)\s+BREAK(?=\s|$)/g;

/** The prompt without it, and what was done. */
export function plainPrompt(prompt: string): { prompt: string; warnings: string[] } {
  // Refused for its length where it is checked.
  if (prompt.length > PROMPT_MAX) return { prompt, warnings: [] };
  const networks = prompt.match(NETWORK) ?? [];
  const without = prompt.replace(NETWORK, '');
  const plain = without.replace(WEIGHTED, '$1').replace(BREAK, '');
  const warnings = [
    ...networks.map((tag) => `${tag.slice(0, 100)} was left out: LoRAs and other networks are not there`),
    ...(plain === without ? [] : ['weights and BREAK were left out: this model has none']),
  ];
  // What a tag leaves at the end would be another prompt.
  return {
    prompt: networks.length > 0 ? plain.replace(/(?<![\s,])[\s,]+$/, '').replace(/ {2,}/g, ' ') : plain,
    warnings,
  };
}

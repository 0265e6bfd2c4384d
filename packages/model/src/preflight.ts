/** A look at a checkpoint, headers alone, in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CodedError, type ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { Room } from './plan/plan.js';

export interface PreflightQuestion {
  /** Name of a model that was added, or a checkpoint folder. */
  target: string;
  dataDir: string;
  /** Memory that the model may take; null for what is free. */
  memoryBytes: number | null;
  /** Of what is not free: memory of a worker that will have ended by then, less what is promised to others. */
  heldBytes: number;
  /** Workers that share what is free, each with a part of its own. */
  sharers: number;
  /** The graphics card that computes; null for the processor, or where its memory is not known. */
  card: Room['card'];
}

export type PreflightAnswer = { model: ModelInfo } | { error: ErrorObject };

/** The headers of the largest model are read within a second from a slow disk. */
const LIMIT_MS = 60_000;
/** Characters of an answer. */
const ANSWER_MAX = 1 << 20;

/**
 * What the checkpoint is, and how it will be run. @throws CodedError MODEL_*, MODEL_LOAD_STALLED where its disk does
 * not answer, SUPERVISOR_STOPPING where `signal` says so
 */
export function lookAtModel(question: PreflightQuestion, signal?: AbortSignal): Promise<ModelInfo> {
  const entry = fileURLToPath(import.meta.resolve('@qwen-supervisor/model/preflight-main'));
  const child = spawn(process.execPath, [entry, JSON.stringify(question)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { target: path } = question;
  // A process that waits for a disk cannot be killed; nobody has to wait with it.
  child.unref();
  return new Promise<ModelInfo>((resolve, reject) => {
    let text = '';
    const giveUp = (error: CodedError) => {
      child.kill('SIGKILL');
      reject(error);
    };
    const late = `${path}: could not be looked at within ${LIMIT_MS / 1000} s`;
    const timer = setTimeout(() => giveUp(new CodedError('MODEL_LOAD_STALLED', late)), LIMIT_MS);
    signal?.addEventListener('abort', () => giveUp(new CodedError('SUPERVISOR_STOPPING')));
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (chunk: string) => {
      if (text.length < ANSWER_MAX) text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, killedBy) => {
      clearTimeout(timer);
      try {
        const answer = JSON.parse(text) as PreflightAnswer;
        if ('model' in answer) resolve(answer.model);
        else reject(CodedError.from(answer.error));
      } catch (cause) {
        const how = killedBy ?? `code ${code}`;
        reject(new CodedError('MODEL_LOAD_FAILED', `${path}: the look at it ended with ${how}`, { cause }));
      }
    });
  });
}

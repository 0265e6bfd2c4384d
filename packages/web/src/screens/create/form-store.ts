/** The form as it was typed, also after a reload. */
import { create } from 'zustand';
import { newSeed } from '../../platform/ids';
import { load, ofThisTab, save } from '../../platform/storage';
import { emptyForm, type Form } from './form';

/** Prompts that were sent, newest first, to be had again. */
const PROMPTS_KEPT = 50;

interface FormStore {
  form: Form;
  prompts: readonly string[];
  /** Why what was dropped or pasted was not taken. */
  problem: string | null;
}

export const useForm = create<FormStore>(() => ({
  // Two tabs have two forms; a new one begins with what was typed last.
  form: { ...emptyForm(newSeed()), ...(load<Form>('form', ofThisTab) ?? load<Form>('form')) },
  prompts: load<string[]>('prompts') ?? [],
  problem: null,
}));

useForm.subscribe(({ form }, before) => {
  if (form === before.form) return;
  // Pictures may be larger than what a browser keeps.
  const source = form.source?.value.startsWith('data:') ? null : form.source;
  save('form', { ...form, source }, ofThisTab);
  save('form', { ...form, source });
});

export function edit(changes: Partial<Form>): void {
  useForm.setState(({ form }) => ({ form: { ...form, ...changes } }));
}

export function startOver(): void {
  replaceForm(() => emptyForm(newSeed()));
}

/** A prompt that was not sent is kept among the earlier ones. */
export function replaceForm(change: (form: Form) => Form): void {
  const { form } = useForm.getState();
  if (form.prompt.trim() !== '') keepPrompt(form.prompt);
  useForm.setState({ form: change(form), problem: null });
}

/** After a Send: another seed, unless it is to stay. */
export function sent(prompt: string): void {
  keepPrompt(prompt);
  const { form } = useForm.getState();
  if (!form.isSeedLocked) edit({ seed: newSeed() });
}

function keepPrompt(prompt: string): void {
  // Those of other tabs, too.
  const known = load<string[]>('prompts') ?? useForm.getState().prompts;
  const prompts = [prompt, ...known.filter((one) => one !== prompt)].slice(0, PROMPTS_KEPT);
  save('prompts', prompts);
  useForm.setState({ prompts });
}

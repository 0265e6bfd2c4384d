/** The form as it was typed, also after a reload. */
import { create } from 'zustand';
import { newSeed } from '../../platform/ids';
import { load, save } from '../../platform/storage';
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
  form: { ...emptyForm(newSeed()), ...load<Form>('form') },
  prompts: load<string[]>('prompts') ?? [],
  problem: null,
}));

useForm.subscribe(({ form }, before) => {
  if (form === before.form) return;
  // Pictures may be larger than what a browser keeps.
  const source = form.source?.value.startsWith('data:') ? null : form.source;
  save('form', { ...form, source });
});

export function edit(changes: Partial<Form>): void {
  useForm.setState(({ form }) => ({ form: { ...form, ...changes } }));
}

export function startOver(): void {
  useForm.setState({ form: emptyForm(newSeed()), problem: null });
}

/** After a Send: another seed, unless it is to stay. */
export function sent(prompt: string): void {
  const { form, prompts } = useForm.getState();
  const kept = [prompt, ...prompts.filter((one) => one !== prompt)].slice(0, PROMPTS_KEPT);
  save('prompts', kept);
  useForm.setState({ prompts: kept, form: form.isSeedLocked ? form : { ...form, seed: newSeed() } });
}

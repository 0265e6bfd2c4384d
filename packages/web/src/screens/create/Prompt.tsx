import { type KeyboardEvent, useState } from 'react';
import { useLive } from '../../live/store';
import { edit, useForm } from './form-store';

export function Prompt() {
  const prompt = useForm(({ form }) => form.prompt);
  const prompts = useForm(({ prompts }) => prompts);
  const model = useLive(({ state }) => state?.model);
  /** Of the earlier prompts: -1 is what was being written. */
  const [at, setAt] = useState(-1);
  const [draft, setDraft] = useState('');
  const onKeyDown = (event: KeyboardEvent) => {
    const to = event.altKey ? { ArrowUp: at + 1, ArrowDown: at - 1 }[event.key] : undefined;
    if (event.key === 'Escape') (event.target as HTMLElement).blur();
    if (to === undefined) return;
    event.preventDefault();
    if (to < -1 || to >= prompts.length) return;
    if (at === -1) setDraft(prompt);
    setAt(to);
    edit({ prompt: to === -1 ? draft : (prompts[to] ?? '') });
  };
  return (
    <div className="stack">
      <label className="field">
        <span>Prompt</span>
        <textarea
          id="prompt"
          rows={4}
          maxLength={20_000}
          value={prompt}
          placeholder="Describe a picture"
          onChange={({ target }) => {
            setAt(-1);
            edit({ prompt: target.value });
          }}
          onKeyDown={onKeyDown}
        />
      </label>
      {prompt === '' && model && (
        <div className="stack">
          {model.note && <p className="muted small">{model.note}</p>}
          <ul className="chips" aria-label="Examples">
            {model.examples.map((example) => (
              <li key={example}>
                <button type="button" className="chip small" onClick={() => edit({ prompt: example })}>
                  {example}
                </button>
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}

import { type KeyboardEvent, useEffect, useState } from 'react';
import { Dialog } from '../parts/Dialog';
import { here } from '../platform/place';
import { scopeOf } from './keys';
import { ACTIONS, keyName } from './table';
import { tell, useUi } from './ui';
import './palette.css';

/** Every act by its words. Reference: ARIA APG, "Editable combobox with list autocomplete". */
export function Palette() {
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const scope = scopeOf(here());
  const words = text.toLowerCase().split(/\s+/);
  const found = ACTIONS.filter(
    (action) =>
      action.run !== null &&
      action.id !== 'palette' &&
      (action.scope === 'anywhere' || action.scope === scope) &&
      words.every((word) => action.words.toLowerCase().includes(word)),
  );
  const chosen = found[Math.min(at, found.length - 1)];
  useEffect(() => {
    document.getElementById(`command-${chosen?.id}`)?.scrollIntoView({ block: 'nearest' });
  }, [chosen]);
  const close = () => useUi.setState({ open: null });
  const run = (action = chosen) => {
    close();
    const enabled = action?.enabled();
    if (typeof enabled === 'string') tell(enabled);
    else action?.run?.();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
    if (event.key === 'Enter' && !event.nativeEvent.isComposing) run();
    else if (to !== undefined) setAt(Math.max(0, Math.min(found.length - 1, to)));
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Commands" onClose={close}>
      <input
        role="combobox"
        data-first
        aria-label="Command"
        aria-expanded="true"
        aria-controls="commands"
        aria-activedescendant={chosen ? `command-${chosen.id}` : undefined}
        placeholder="What do you want to do?"
        value={text}
        onChange={({ target }) => {
          setText(target.value);
          setAt(0);
        }}
        onKeyDown={onKeyDown}
      />
      <div id="commands" role="listbox" aria-label="Commands" className="commands">
        {found.map((action) => {
          const enabled = action.enabled();
          return (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the keys are those of the field above
            <div
              key={action.id}
              id={`command-${action.id}`}
              role="option"
              tabIndex={-1}
              aria-selected={action === chosen}
              aria-disabled={enabled !== true}
              onClick={() => run(action)}
            >
              <span className="grow">
                {action.words}
                {enabled !== true && <span className="muted small"> {enabled}</span>}
              </span>
              {[...new Set(action.keys.map(keyName))].map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </div>
          );
        })}
      </div>
      {found.length === 0 && <p className="muted">No command has these words.</p>}
    </Dialog>
  );
}

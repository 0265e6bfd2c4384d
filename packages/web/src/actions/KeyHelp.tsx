import { Fragment, useEffect, useState } from 'react';
import { call } from '../api/http';
import { Button } from '../parts/Button';
import { Dialog } from '../parts/Dialog';
import { askForNotices, whyNoNotices } from '../platform/notify';
import { ACTIONS, keyName, type Scope } from './table';
import { setNotifies, setSingleKeys, setTheme, type Theme, tell, tellError, useUi } from './ui';

const SCOPES: Record<Scope, string> = {
  anywhere: 'Anywhere',
  create: 'Create',
  queue: 'Queue',
  gallery: 'Gallery',
  picture: 'Large picture',
};

/** Where keys are asked for. */
function SignOut() {
  const [isSignedIn, setIsSignedIn] = useState(false);
  useEffect(() => {
    call<{ required: boolean }>('GET', 'api/v1/session').then(({ required }) => setIsSignedIn(required), tellError);
  }, []);
  const signOut = async () => {
    await call('DELETE', 'api/v1/session');
    location.reload();
  };
  if (!isSignedIn) return null;
  return (
    <div>
      <Button onClick={() => void signOut().catch(tellError)}>Sign out</Button>
    </div>
  );
}

export function KeyHelp() {
  const { theme, singleKeys, notifies } = useUi();
  const noNotices = whyNoNotices();
  const switchNotices = async (wanted: boolean) => {
    if (wanted && !(await askForNotices())) return tell('The browser shows no notices of this page.', { tone: 'bad' });
    setNotifies(wanted);
  };
  return (
    <Dialog title="Keys and settings" onClose={() => useUi.setState({ open: null })}>
      <div className="stack">
        <label className="field">
          <span>Colours</span>
          <select value={theme} onChange={({ target }) => setTheme(target.value as Theme)}>
            <option value="system">As the system</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
        </label>
        <label className="row">
          <input type="checkbox" checked={singleKeys} onChange={({ target }) => setSingleKeys(target.checked)} />
          <span className="grow">Single keys act (those without Ctrl or Alt)</span>
        </label>
        {noNotices === null ? (
          <label className="row">
            <input type="checkbox" checked={notifies} onChange={({ target }) => void switchNotices(target.checked)} />
            <span className="grow">A notice when pictures are done and nobody looks at the page</span>
          </label>
        ) : (
          <p className="muted small">{noNotices}</p>
        )}
        <SignOut />
        <div className="keys">
          {Object.entries(SCOPES).map(([scope, name]) => (
            <Fragment key={scope}>
              <h3>{name}</h3>
              <dl>
                {ACTIONS.filter((action) => action.scope === scope && action.keys.length > 0).map(
                  ({ id, words, keys }) => (
                    <div key={id} className="row">
                      <dt className="grow">{words}</dt>
                      <dd>
                        {[...new Set(keys.map(keyName))].map((key) => (
                          <kbd key={key}>{key}</kbd>
                        ))}
                      </dd>
                    </div>
                  ),
                )}
              </dl>
            </Fragment>
          ))}
        </div>
      </div>
    </Dialog>
  );
}

import { useEffect } from 'react';
import { Route, Switch } from 'wouter';
import { KeyHelp } from './actions/KeyHelp';
import { Palette } from './actions/Palette';
import { tell, useUi } from './actions/ui';
import { Frame } from './Frame';
import { onEvent, useLive } from './live/store';
import { Notices } from './parts/Notices';
import { Create } from './screens/create/Create';
import { Gallery } from './screens/gallery/Gallery';
import { PicturePage } from './screens/gallery/PicturePage';
import { Queue } from './screens/queue/Queue';
import { SignIn } from './screens/sign-in/SignIn';
import { System } from './screens/system/System';
import { pictures } from './words';

export function App() {
  const signedOut = useLive(({ signedOut }) => signedOut);
  const isKnown = useLive(({ state }) => state !== null);
  const open = useUi(({ open }) => open);
  useEffect(
    () =>
      onEvent((name, data) => {
        if (name === 'away') tell(`${pictures(data as number)} finished while you were away.`);
      }),
    [],
  );
  if (signedOut) return <SignIn />;
  return (
    <Frame>
      {isKnown && (
        <Switch>
          <Route path="/queue" component={Queue} />
          <Route path="/gallery" component={Gallery} />
          <Route path="/gallery/:id">{({ id }) => <PicturePage id={id} />}</Route>
          <Route path="/jobs/:id">{({ id }) => <PicturePage id={id} />}</Route>
          <Route path="/system" component={System} />
          <Route path="/" component={Create} />
          <Route>
            <main className="screen" id="main">
              <p>There is nothing here.</p>
            </main>
          </Route>
        </Switch>
      )}
      <Notices />
      {open === 'help' && <KeyHelp />}
      {open === 'palette' && <Palette />}
    </Frame>
  );
}

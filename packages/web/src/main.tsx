/** Begins: theme, keys, the stream, and the page. */
// Before all others: the order of the layers is said there.
import './styles/tokens.css';
import './styles/base.css';

import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { Router } from 'wouter';
import { App } from './App';
import { listenToKeys } from './actions/keys';
import { showTheme } from './actions/ui';
import { whenSignedOut } from './api/http';
import { resume } from './live/outbox';
import { live, useLive } from './live/store';
import { Mishap } from './parts/Mishap';
import { BASE } from './platform/place';
import { keepTrue } from './screens/gallery/gallery-data';

showTheme();
listenToKeys();
whenSignedOut(() => useLive.setState({ signedOut: true }));
void live();
resume();

const queries = new QueryClient({
  // Whether it can be reached the stream finds out, and then everything is asked for again.
  defaultOptions: { queries: { networkMode: 'always', retry: false, refetchOnWindowFocus: false, staleTime: 30_000 } },
});

keepTrue(queries);

createRoot(document.getElementById('app') as HTMLElement).render(
  <QueryClientProvider client={queries}>
    <Router base={BASE}>
      <Mishap>
        <App />
      </Mishap>
    </Router>
  </QueryClientProvider>,
);

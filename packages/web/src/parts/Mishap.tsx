import { Component, type ReactNode } from 'react';

/** A fault of the page itself: said, with a way on. What was typed is kept, and the server draws on. */
export class Mishap extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null as Error | null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <main className="screen stack" id="main">
        <h1>The page has a fault</h1>
        <p>What was sent is drawn all the same, and what was typed is kept.</p>
        <p className="problem mono">{error.message}</p>
        <div>
          <button type="button" className="button primary" onClick={() => window.location.reload()}>
            Reload the page
          </button>
        </div>
      </main>
    );
  }
}

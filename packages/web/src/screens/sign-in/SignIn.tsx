import { useState } from 'react';
import { ApiError, call } from '../../api/http';
import { reconnect } from '../../live/store';
import './sign-in.css';

export function SignIn() {
  const [key, setKey] = useState('');
  const [problem, setProblem] = useState<string | null>(null);
  const signIn = async () => {
    try {
      await call('POST', 'api/v1/session', { body: { key: key.trim() } });
      reconnect();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setProblem(error.status === 401 ? 'This key is not one of this server.' : `${error.message} ${error.hint}`);
    }
  };
  return (
    <main className="sign-in panel stack">
      <h1>qwen-supervisor</h1>
      <p>This server asks for a key. Whoever runs it makes one for you with “qwen-supervisor keys add”.</p>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void signIn();
        }}
      >
        <label className="field">
          <span>Key</span>
          <input
            type="password"
            autoComplete="current-password"
            value={key}
            onChange={({ target }) => setKey(target.value)}
            aria-describedby="sign-in-problem"
          />
        </label>
        <p id="sign-in-problem" className="bad" role="alert">
          {problem}
        </p>
        <button type="submit" className="button primary">
          Sign in
        </button>
      </form>
    </main>
  );
}

/** What the error table says of a failure. */

/** Who has to act: the caller changes the request, the environment is repaired by the operator, or we have a bug. */
export type Blame = 'caller' | 'environment' | 'us';

export interface ErrorRow {
  /** Default message; most errors are raised with a more specific one. */
  message: string;
  /** What to do, in the imperative. */
  hint: string;
  http: number;
  exit: number;
  blame: Blame;
  /** Whether the same action may succeed later without anyone changing anything. */
  retryable: boolean;
}

type Facts = [message: string, hint: string, http: number, exit: number, blame: Blame, retryable?: boolean];
export const row = (...[message, hint, http, exit, blame, retryable = false]: Facts): ErrorRow => {
  return { message, hint, http, exit, blame, retryable };
};

import { create } from 'zustand';

/** Our clock, in milliseconds since 1970: one for all that is shown, moved each second while somebody looks. */
const useClock = create(() => ({ nowMs: Date.now() }));

setInterval(() => {
  if (document.visibilityState === 'visible') useClock.setState({ nowMs: Date.now() });
}, 1000);

export function useNow(): number {
  return useClock(({ nowMs }) => nowMs);
}

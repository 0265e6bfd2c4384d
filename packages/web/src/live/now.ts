import { useEffect, useState } from 'react';

/** Our clock, in milliseconds since 1970; drawn anew each second while somebody looks. */
export function useNow(): number {
  const [nowMs, setNowMs] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.visibilityState === 'visible') setNowMs(Date.now());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return nowMs;
}

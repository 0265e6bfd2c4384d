/**
 * What this browser keeps for this page: for every tab, or for this one alone. Where it keeps nothing (a private
 * window, a full disk) the page works without.
 */

export function load<T>(key: string, storage: () => Storage = () => localStorage): T | null {
  try {
    const text = storage().getItem(`qwen-supervisor.${key}`);
    return text === null ? null : (JSON.parse(text) as T);
  } catch (error) {
    console.info(`nothing is kept here: ${(error as Error).message}`);
    return null;
  }
}

export function save(key: string, value: unknown, storage: () => Storage = () => localStorage): void {
  try {
    storage().setItem(`qwen-supervisor.${key}`, JSON.stringify(value));
  } catch (error) {
    console.info(`not kept: ${(error as Error).message}`);
  }
}

export const ofThisTab = () => sessionStorage;

/** What this browser keeps for this page. Where it keeps nothing (a private window, a full disk) the page works without. */

export function load<T>(key: string): T | null {
  try {
    const text = localStorage.getItem(`qwen-supervisor.${key}`);
    return text === null ? null : (JSON.parse(text) as T);
  } catch (error) {
    console.info(`nothing is kept here: ${(error as Error).message}`);
    return null;
  }
}

export function save(key: string, value: unknown): void {
  try {
    localStorage.setItem(`qwen-supervisor.${key}`, JSON.stringify(value));
  } catch (error) {
    console.info(`not kept: ${(error as Error).message}`);
  }
}

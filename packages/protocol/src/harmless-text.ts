/** Texts that come from clients, files and other processes, as a terminal may be shown them. */

/** Controls but tab and newline, marks of direction, and separators of lines that only some programs know. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** As JSON writes them, so that a line of JSON stays one. */
export function harmless(text: string): string {
  return text.replace(OBEYED, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

import { PassThrough } from 'node:stream';
import { ChildOutput, readLines } from '@qwen-supervisor/supervisor/processes/child-output';
import { describe, expect, test } from 'vitest';

async function linesOf(...chunks: string[]): Promise<string[]> {
  const stream = new PassThrough();
  const lines: string[] = [];
  const ended = readLines(stream, (line) => lines.push(line));
  for (const chunk of chunks) stream.write(chunk);
  stream.end();
  await ended;
  return lines;
}

describe('lines', () => {
  test('are put together over chunks; the last one needs no newline, empty ones are left out', async () => {
    expect(await linesOf('a\nb', 'c\n\n', 'd')).toEqual(['a', 'bc', 'd']);
  });

  test('are cut at 8192 characters, and what follows them is read again', async () => {
    const lines = await linesOf(...Array.from({ length: 100 }, () => 'x'.repeat(1000)), '\nnext\n');
    expect(lines).toEqual([`${'x'.repeat(8192)} …`, 'next']);
  });

  test('keep characters that a chunk cuts in two', async () => {
    const stream = new PassThrough();
    const lines: string[] = [];
    const ended = readLines(stream, (line) => lines.push(line));
    for (const byte of Buffer.from('狐\n')) stream.write(Buffer.from([byte]));
    stream.end();
    await ended;
    expect(lines).toEqual(['狐']);
  });
});

describe('a flood', () => {
  test('is cut off after a burst, later at a rate, and every line is written or counted', () => {
    const [written, dropped]: [string[], number[]] = [[], []];
    const output = new ChildOutput(
      (_stream, line) => written.push(line),
      (lines) => dropped.push(lines),
      0,
    );
    for (let i = 0; i < 50_000; i++) output.line('stdout', `line ${i}`, 0);
    expect(written).toHaveLength(1000);
    for (let i = 0; i < 50_000; i++) output.line('stdout', `line ${i}`, 1000);
    output.tellDropped();
    expect(written).toHaveLength(1200);
    expect(written.length + dropped.reduce((a, b) => a + b, 0)).toBe(100_000);
  });

  test('leaves its end for the record of a crash, bounded in lines and in characters', () => {
    const output = new ChildOutput(
      () => {},
      () => {},
      0,
    );
    for (let i = 0; i < 10_000; i++) output.line('stderr', `line ${i}`, 0);
    expect(output.tail).toHaveLength(40);
    expect(output.tail.at(-1)).toBe('line 9999');
    for (let i = 0; i < 10; i++) output.line('stderr', 'y'.repeat(8000), 0);
    expect(output.tail.join('').length).toBeLessThanOrEqual(16_384);
  });
});

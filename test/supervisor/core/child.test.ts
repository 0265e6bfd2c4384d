import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import { NO_HISTORY } from '@qwen-supervisor/supervisor/core/restart-policy';
import { describe, expect, test } from 'vitest';
import { BUSY, beat, beats, exited, LIMITS, loading, type Played, play, READY, START } from './child-events.js';

test('a child is ready when it says so', () => {
  expect(play(START).child).toMatchObject({ phase: 'loading', pid: 7 });
  expect(play(READY).child).toMatchObject({ phase: 'ready', reason: 'ready' });
});

describe('a load', () => {
  test('that goes on for ten stall limits is not killed while it makes progress', () => {
    const steps = Array.from({ length: 20 }, (_, i): Played[] => [
      [(i + 1) * 60_000, loading((i + 1) / 40)],
      [(i + 2) * 60_000 - 1, { type: 'tick' }],
    ]).flat();
    expect(play([...START, ...steps]).child.phase).toBe('loading');
  });

  test('that says nothing for ten stall limits is not killed while the process reads, grows or computes', () => {
    for (const vital of ['readBytes', 'rssBytes', 'cpuSeconds'] as const) {
      const share: Played = [1000, loading(0.1)];
      const end = vital === 'cpuSeconds' ? 599_000 : 1_200_000;
      const working = beats(2000, end, (s) => ({ [vital]: vital === 'cpuSeconds' ? s : s * 10e6 }));
      expect(play([...START, share, ...working, [end, { type: 'tick' }]]).child.phase, vital).toBe('loading');
    }
  });

  test('that only turns round is killed at the load limit, however busy it is', () => {
    const looping = beats(2000, 601_000, (s) => ({ cpuSeconds: s }));
    expect(
      play([...START, [1000, loading(1)], ...looping, [601_000, { type: 'tick' }], [606_000, { type: 'tick' }]])
        .effects,
    ).toMatchObject([{ type: 'kill' }]);
  });

  test('that stalls is killed at the stall limit though the helper thread beats, the reason says where, and it is tried again', () => {
    const idle = beats(60_000, 181_000, () => ({ cpuSeconds: 3, readBytes: 9 }));
    const stalled: Played[] = [...START, [60_000, loading(0.62)], ...idle];
    expect(play([...stalled, [179_999, { type: 'tick' }]]).effects).toEqual([]);
    const looked: Played[] = [...stalled, [180_000, { type: 'tick' }]];
    expect(play(looked).effects).toEqual([]);
    const killed = play([...looked, [185_000, { type: 'tick' }]]);
    expect(killed.effects).toMatchObject([{ type: 'kill' }]);
    const dead = play([...looked, [185_000, { type: 'tick' }], [185_001, exited(null, 'SIGKILL')]]).child;
    expect(dead).toMatchObject({ phase: 'backing-off', restarts: 1, lastExit: { cause: 'stalled' } });
    expect(dead.reason).toMatch(
      /^MODEL_LOAD_STALLED: transformer at 62 %, no progress for 125 s, 127 s in all; starting again in 2\.0 s$/,
    );
  });

  test('that only pretends to make progress is killed at the load limit', () => {
    const steps = Array.from({ length: 10 }, (_, i): Played => [(i + 1) * 59_000, loading(0)]);
    expect(play([...START, ...steps, [600_001, { type: 'tick' }]]).effects).toEqual([]);
    const looked: Played[] = [...START, ...steps, [600_002, { type: 'tick' }]];
    expect(play([...looked, [605_002, { type: 'tick' }]]).effects).toMatchObject([{ type: 'kill' }]);
  });

  test('that fails by its own word waits longer than a crash, and a permanent fault is not tried again', () => {
    const fatal = (permanent: boolean): Played[] => {
      const error = { code: 'MODEL_LOAD_FAILED', message: 'broken', hint: '' } as const;
      return [...START, [3, { type: 'fatal', error, permanent }], [4, exited(87, null)]];
    };
    expect(play(fatal(false)).child).toMatchObject({ phase: 'backing-off', lastExit: { cause: 'load-failed' } });
    expect(play(fatal(true)).child).toMatchObject({
      phase: 'failed',
      reason: 'MODEL_LOAD_FAILED: broken',
      deadlineMs: null,
    });
  });

  test('that finds no device memory is tried once more', () => {
    const error = { code: 'DEVICE_MEMORY_EXHAUSTED', message: 'full', hint: '' } as const;
    const failing = (atMs: number): Played[] => [
      [atMs, { type: 'connected' }],
      [atMs, { type: 'fatal', error, permanent: false }],
      [atMs + 1, exited(93, null)],
    ];
    const once = play([[0, { type: 'start' }], ...failing(1)]);
    expect(once.child).toMatchObject({ phase: 'backing-off', lastExit: { cause: 'device-memory' } });
    const twice = play([[0, { type: 'start' }], ...failing(1), [6000, { type: 'tick' }], ...failing(6001)]);
    expect(twice.child).toMatchObject({ phase: 'failed', reason: expect.stringMatching(/2 times in a row, given up/) });
  });
});

describe('a worker', () => {
  test('that stops beating is killed, whether it draws or not', () => {
    const looked: Played[] = [...READY, [10_000, beat()], [20_000, { type: 'tick' }]];
    expect(play([...looked, [24_999, { type: 'tick' }]]).effects).toEqual([]);
    const silent = play([...BUSY, [11_000, { type: 'tick' }], [16_000, { type: 'tick' }]]);
    expect(silent.effects).toMatchObject([{ type: 'kill', noteThreads: true }]);
    expect(silent.child.reason).toBe('no sign of life for 15 s');
  });

  test('that beats and computes but completes no step is killed after the step limit', () => {
    const looping = (toMs: number) => beats(2000, toMs, (s) => ({ cpuSeconds: s, step: 3 }));
    expect(play([...BUSY, ...looping(122_000)]).child.phase).toBe('busy');
    const killed = play([...BUSY, ...looping(124_000)]);
    expect(killed.child.phase).toBe('killing');
    expect(killed.child.reason).toMatch(/^no step for 12\d s, expected after/);
  });

  test('whose steps take a hundred times as long as expected at first, and five times as long later, is let go on', () => {
    // 60 s a step, then 300 s: more than the step limit, but it computes, and ten times 60 s are allowed.
    const slow = beats(2000, 602_000, (s) => ({ cpuSeconds: s, step: Math.floor(s / 60) }));
    const slower = beats(602_000, 1_800_000, (s) => ({ cpuSeconds: 600 + s, step: 10 + Math.floor(s / 300) }));
    expect(play([...BUSY, ...slow, ...slower]).child.phase).toBe('busy');
    // One that does nothing at all is not given that time.
    const dead = beats(602_000, 730_000, () => ({ cpuSeconds: 600, step: 10 }));
    expect(play([...BUSY, ...slow, ...dead]).child).toMatchObject({
      phase: 'killing',
      reason: expect.stringMatching(/^no step, and nothing read or computed/),
    });
  });

  test('whose steps take an hour is let go on as long as parts of them are completed', () => {
    const parts = beats(2000, 3_600_000, (s) => ({ cpuSeconds: s, step: 0, work: Math.floor(s / 100) }));
    expect(play([...BUSY, ...parts]).child.phase).toBe('busy');
    // None for 20 minutes, after one in 100 s each: ten times as long is allowed.
    const stuck = beats(3_600_000, 4_900_000, (s) => ({ cpuSeconds: 3600 + s, step: 0, work: 35 }));
    expect(play([...BUSY, ...parts, ...stuck]).child).toMatchObject({ phase: 'killing' });
    // Weights of the next stage are read meanwhile.
    const reading = beats(3_600_000, 4_900_000, (s) => ({ cpuSeconds: 3600, step: 0, work: 35 + s }));
    expect(play([...BUSY, ...parts, ...reading]).child.phase).toBe('busy');
  });

  test('is not blamed for a time in which the supervisor itself stood still', () => {
    const paused: Played[] = [...BUSY, [500_000, { type: 'tick' }]];
    expect(play(paused).child.phase).toBe('busy');
    expect(play([...paused, [501_000, beat({ step: 1 })], [510_000, { type: 'tick' }]]).child.phase).toBe('busy');
    // Not even where it stood still until just before its look.
    const late: Played[] = [...BUSY, [11_500, { type: 'tick' }], [12_000, beat()]];
    expect(play([...late, [16_500, { type: 'tick' }]]).child.phase).toBe('busy');
    // A machine on which every look is late is slow, not stopped: the fifth look counts.
    const looks = Array.from({ length: 5 }, (_, i): Played => [20_000 + i * 10_000, { type: 'tick' }]);
    expect(play([...BUSY, ...looks.slice(0, 4)]).child.phase).toBe('busy');
    expect(play([...BUSY, ...looks]).child.phase).toBe('killing');
  });

  test('that resumes is given the time that a step takes: steps of earlier attempts were not made now', () => {
    const slow: Played[] = [...START, [1000, { type: 'ready', msPerToken: 4000 }]];
    const resumed: Played[] = [...slow, [1001, { type: 'assigned', tokens: 64 }], [1500, { type: 'begun', step: 20 }]];
    const working = beats(2000, 200_000, (s) => ({ cpuSeconds: s, step: 20 }));
    expect(play([...resumed, ...working]).child.phase).toBe('busy');
    // A beat from before the attempt began carries the step of the job before.
    const early: Played[] = [...slow, [1001, { type: 'assigned', tokens: 64 }], [1100, beat({ step: 20 })]];
    const fresh = beats(2000, 200_000, (s) => ({ cpuSeconds: s, step: 0 }));
    expect(play([...early, [1500, { type: 'begun', step: 0 }], ...fresh]).child.phase).toBe('busy');
  });

  test('whose text took long is given no longer for its steps', () => {
    const steps = (s: number) => ({ cpuSeconds: s, step: 1, work: 2 + s });
    // The text and a tile: each something that is completed, and none of them a step.
    const text: Played[] = [...BUSY, ...beats(2000, 100_000, (s) => ({ cpuSeconds: s, work: s < 90 ? 0 : 1 }))];
    const stuck = beats(102_000, 300_000, (s) => ({ ...steps(0), cpuSeconds: 100 + s }));
    const played = play([...text, [101_000, beat(steps(0))], ...stuck, [300_000, { type: 'tick' }]]);
    expect(played.child.phase).toBe('killing');
  });

  test('that is killed after its job has ended dies with no job in its hands', () => {
    const stopping: Played[] = [...BUSY, [2000, { type: 'restart', reason: 'asked' }], [2100, { type: 'idle' }]];
    expect(play(stopping).child.during).toBe('ready');
    expect(play(stopping.slice(0, -1)).child.during).toBe('busy');
  });

  test('above the soft memory limit is restarted when its job has ended, above the hard one at once', () => {
    const limits = { ...LIMITS, softBytes: 2e9, hardBytes: 3e9 } as unknown as typeof LIMITS;
    const soft: Played[] = [...BUSY, [1500, beat({ rssBytes: 1e9 })], [2000, beat({ rssBytes: 2.5e9 })]];
    expect(play(soft, limits).child.phase).toBe('busy');
    const idle = play([...soft, [3000, { type: 'idle' }]], limits);
    expect(idle.effects).toEqual([{ type: 'ask-stop', name: 'inference', forGood: false }]);
    const again = play([...soft, [3000, { type: 'idle' }], [3100, exited(0, null)]], limits);
    expect(again.effects).toMatchObject([{ type: 'spawn', incarnation: 2 }]);
    expect(again.child).toMatchObject({ restarts: 0, reason: expect.stringMatching(/2\.5 GB of memory/) });
    const hard = play([...BUSY, [2000, beat({ rssBytes: 3.5e9 })]], limits);
    expect(hard.effects).toMatchObject([{ type: 'kill' }]);
    expect(hard.child.ending).toMatchObject({ cause: 'memory-limit' });
  });

  test('that a model alone lifts above the soft limit is not restarted for nothing', () => {
    const limits = { ...LIMITS, softBytes: 2e9 } as unknown as typeof LIMITS;
    expect(play([...READY, [2000, beat({ rssBytes: 2.5e9 })]], limits).child.phase).toBe('ready');
    const drawn: Played[] = [...BUSY, [2000, beat({ rssBytes: 2.5e9 })], [3000, beat({ rssBytes: 2.6e9 })]];
    expect(play([...drawn, [4000, { type: 'idle' }]], limits).child.phase).toBe('ready');
  });
});

describe('the cause of an exit', () => {
  test.each([
    [exited(null, 'SIGKILL'), 'killed'],
    [exited(null, 'SIGKILL', true), 'oom-killed'],
    [exited(null, 'SIGTERM', true), 'killed'],
    [exited(null, 'SIGABRT'), 'crashed'],
    [exited(1, null), 'crashed'],
    [exited(0, null), 'clean'],
  ] as const)('%o is %s', (exit, cause) => {
    expect(play([...READY, [2000, exit]]).child.lastExit).toMatchObject({ cause });
  });
});

describe('a device', () => {
  const fatal = (code: ErrorCode) =>
    ({ type: 'fatal', error: new CodedError(code).toObject(), permanent: code === 'DEVICE_UNAVAILABLE' }) as const;
  const onCard = { ...LIMITS, hasNextDevice: true };

  test('that is lost twice in a row is left for the next one, at once', () => {
    const once: Played[] = [...BUSY, [2000, fatal('DEVICE_LOST')], [2001, exited(93, null)]];
    expect(play(once, onCard).effects).toMatchObject([{ type: 'spawn', incarnation: 2 }]);
    const again: Played[] = [
      [2002, { type: 'spawned', pid: 8 }],
      [2003, { type: 'connected' }],
    ];
    const twice = [...once, ...again, [3000, fatal('DEVICE_UNAVAILABLE')], [3001, exited(93, null)]] as Played[];
    expect(play(twice, onCard).effects).toMatchObject([
      { type: 'use-next-device', reason: expect.stringContaining('DEVICE_UNAVAILABLE') },
      { type: 'spawn', incarnation: 3 },
    ]);
    expect(play(twice, onCard).child).toMatchObject({
      reason: expect.stringContaining('going on with another device'),
      history: NO_HISTORY,
      lastExit: { cause: 'device' },
    });
    expect(play(twice).effects, 'there is no other').toEqual([]);
  });

  test('whose memory was not enough twice is left without waiting for it', () => {
    const full: Played[] = [...READY, [1100, { type: 'holds', memory: { heldBytes: 8e9, freeBytes: 1e9 } }]];
    const die = (atMs: number): Played[] => [
      [atMs, fatal('DEVICE_MEMORY_EXHAUSTED')],
      [atMs + 1, exited(93, null)],
    ];
    const again: Played[] = [
      [20_000, { type: 'tick' }],
      [20_001, { type: 'memory', freeBytes: 9e9, holder: null }],
    ];
    const played = play([...full, ...die(2000), ...again, ...die(30_000)], onCard);
    expect(played.effects).toMatchObject([{ type: 'use-next-device' }, { type: 'spawn' }]);
  });
});

describe('device memory', () => {
  const HELD: Played[] = [
    ...READY,
    [1100, { type: 'holds', memory: { heldBytes: 8e9, freeBytes: 1e9 } }],
    [2000, exited(null, 'SIGSEGV')],
  ];

  test('that a dead worker held is looked at before the next one is spawned', () => {
    const blocked = play(HELD);
    expect(blocked.child.phase).toBe('blocked');
    expect(blocked.effects).toEqual([{ type: 'probe-memory', name: 'inference', incarnation: 1 }]);
    const waiting = play([...HELD, [2010, { type: 'memory', freeBytes: 2e9, holder: null }], [2250, { type: 'tick' }]]);
    expect(waiting.effects).toEqual([{ type: 'probe-memory', name: 'inference', incarnation: 1 }]);
    const free = play([...HELD, [2300, { type: 'memory', freeBytes: 7.1e9, holder: null }]]);
    expect(free.effects).toMatchObject([{ type: 'spawn', incarnation: 2 }]);
  });

  test('that somebody else holds blocks the start, names the holder, and is asked for less often after ten seconds', () => {
    const holder = 'process 99 (python, 20.0 GB)';
    const ticks = Array.from({ length: 41 }, (_, i): Played => [2250 + i * 250, { type: 'tick' }]);
    const blocked = play([...HELD, ...ticks, [12_251, { type: 'memory', freeBytes: 2e9, holder }]]).child;
    expect(blocked).toMatchObject({ phase: 'blocked', reason: `blocked: device memory is held by ${holder}` });
    expect(blocked.deadlineMs).toBe(12_000 + 5000);
  });
});

describe('a stop', () => {
  test('asks first, then kills the group, then the tree, until the exit is seen', () => {
    const stop: Played[] = [...READY, [2000, { type: 'stop', forGood: true }]];
    expect(play(stop).effects).toEqual([{ type: 'ask-stop', name: 'inference', forGood: true }]);
    expect(play([...stop, [12_000, { type: 'tick' }]]).effects).toMatchObject([{ type: 'kill', tree: false }]);
    const tree = play([...stop, [12_000, { type: 'tick' }], [13_000, { type: 'tick' }]]);
    expect(tree.effects).toMatchObject([{ type: 'kill', tree: true }]);
    const done = play([...stop, [2100, exited(0, null)]]);
    expect(done.child).toMatchObject({ phase: 'stopped', restarts: 0, deadlineMs: null });
  });

  test('during a load or a back-off does not wait', () => {
    expect(play([...START, [3, { type: 'stop', forGood: true }]]).effects).toMatchObject([
      { type: 'kill', tree: false },
    ]);
    expect(play([...START, [3, exited(1, null)], [4, { type: 'stop', forGood: true }]]).child.phase).toBe('stopped');
  });

  test.each([
    ['being killed for a hang', [...READY, [11_000, { type: 'tick' }], [16_000, { type: 'tick' }]] as Played[]],
    ['being restarted', [...READY, [2000, { type: 'restart', reason: 'asked' }]] as Played[]],
  ])('of a child that is %s wins: it does not come back', (_title, before) => {
    expect(
      play([...before, [16_001, { type: 'stop', forGood: true }], [16_002, exited(null, 'SIGKILL')]]).child.phase,
    ).toBe('stopped');
  });
});

describe('a restart', () => {
  test('of a running child asks it to stop, spawns the next when it is gone, and counts as no failure', () => {
    const asked: Played[] = [...BUSY, [2000, { type: 'restart', reason: 'asked' }]];
    expect(play(asked).effects).toEqual([{ type: 'ask-stop', name: 'inference', forGood: false }]);
    const again = play([...asked, [2100, exited(0, null)]]);
    expect(again.effects).toMatchObject([{ type: 'spawn' }]);
    expect(again.child).toMatchObject({ restarts: 0, reason: 'restarted: asked' });
  });

  test('of one that was given up forgets what was held against it', () => {
    const error = { code: 'MODEL_INVALID', message: 'broken', hint: '' } as const;
    const failed: Played[] = [...START, [3, { type: 'fatal', error, permanent: true }], [4, exited(65, null)]];
    const again = play([...failed, [5, { type: 'restart', reason: 'asked' }]]);
    expect(again.child).toMatchObject({ phase: 'starting', history: { chargedAtMs: [], streak: 0 } });
  });
});

test('an event that a state cannot see changes nothing and is said; one that comes late is passed over', () => {
  const odd = play([...READY, [2000, { type: 'connected' }]]);
  expect(odd.child).toEqual(play(READY).child);
  expect(odd.effects).toEqual([{ type: 'note-impossible', name: 'inference', phase: 'ready', event: 'connected' }]);
  const late = play([...READY, [2000, { type: 'memory', freeBytes: 1, holder: null }]]);
  expect(late).toEqual({ child: play(READY).child, effects: [] });
});

test('a back-off ends at its time, however late the clock of the supervisor is', () => {
  const waiting: Played[] = [...START, [3, exited(1, null)]];
  expect(play([...waiting, [60_000, { type: 'tick' }]]).effects).toMatchObject([{ type: 'spawn' }]);
});

import type { Reporter, TestModule } from 'vitest/node';

/** Ends the output with `N passed, N failed`, for machines. A file that cannot be loaded counts as a failure. */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string) => tests.filter((test) => test.result().state === state).length;
    const broken = modules.filter((module) => module.errors().length > 0).length;
    process.on('exit', () => console.log(`${count('passed')} passed, ${count('failed') + broken} failed`));
  }
}

// mocha's own `spec` report, closed by a line with the counts.
const { reporters, Runner } = require('mocha');

module.exports = class Counted extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    // A process of several that ends in the middle is an `Uncaught error outside test suite`: in which file?
    runner.on(Runner.constants.EVENT_TEST_FAIL, (test, error) => {
      if (error.file) test.title += ` (${error.file})`;
    });
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes, failures, pending } = this.stats;
      // Written when the report, which listens to the same event, is out.
      process.nextTick(() => {
        const skipped = pending ? `, ${pending} skipped` : '';
        process.stdout.write(`${passes} passed, ${failures} failed${skipped}\n`);
      });
    });
  }
};

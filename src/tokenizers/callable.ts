/**
 * A base for classes whose instances are called: `tokenizer('a text')`. An instance is a function with the methods of
 * its class, so `instanceof` holds and fields are fields, as in transformers.js.
 */
export abstract class Callable<Arguments extends unknown[], Result> {
  constructor() {
    const called = (...given: Arguments): Result => self.call_with(given);
    const self = Object.setPrototypeOf(called, new.target.prototype as object) as this;
    // a function's own; the class may mean something else by these names
    Reflect.deleteProperty(self, 'name');
    Reflect.deleteProperty(self, 'length');
    return self;
  }

  /** What a call does. */
  protected abstract call_with(given: Arguments): Result;
}

/** Names of a template and their values, scope by scope. */
import { Undefined, type Value } from './values.js';

export class Scope {
  private readonly values = new Map<string, Value>();

  constructor(private readonly parent: Scope | null = null) {}

  set(name: string, value: Value): void {
    this.values.set(name, value);
  }

  get(name: string): Value {
    const own = this.values.get(name);
    if (own !== undefined) return own;
    return this.parent ? this.parent.get(name) : new Undefined(`'${name}'`);
  }
}

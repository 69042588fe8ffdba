/** Kinds of the options that say where replicas run. */
import * as kinds from '../../base/option_kinds.js';

const count = kinds.integer({ min: 1 });

export const dataParallelKind = kinds.orNull(
  kinds.named("'auto', or an integer of 1 or more", (v) => v === 'auto' || count.ok(v)),
);

export const workersKind = kinds.orNull(
  kinds.named(
    "a list of addresses, HOST:PORT: ['10.0.0.2:7700', '10.0.0.3:7700']",
    (v) => Array.isArray(v) && v.length > 0 && v.every((each) => kinds.text.ok(each)),
  ),
);

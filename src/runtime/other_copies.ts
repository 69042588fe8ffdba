/**
 * A second copy of TensorFlow.js in the program, as two versions or a second node_modules bring it. Copies share one engine, so that tensors
 * pass from one to the other, but not layers, optimizers, nor handlers of addresses: what one registers the other does not know. That is said
 * once, at import.
 */
import * as tf from '@tensorflow/tfjs';
import { requireNear } from '../base/package_files.js';

/** tfjs-core sets the platform of the common engine as it is loaded: the copy that was loaded last has an object of its own class there. */
const platformClass = (): { readonly name: string } => tf.env().platform.constructor;
const own = platformClass();

/** Whether another copy was loaded: before this one, which then found an engine that is not its own, or after it. */
function otherCopy(): boolean {
  const now = platformClass();
  // a program may set a platform of another kind
  return !(tf.env() instanceof tf.Environment) || (now !== own && now.name === own.name);
}

const CORE = /[/\\]@tensorflow[/\\]tfjs-core[/\\]dist[/\\]tf-core\.[\w.]+\.js$/;

/** Folders of the copies that Node.js loaded as files; a copy in a bundle has none. */
function folders(): string[] {
  return Object.keys(requireNear.cache)
    .filter((file) => CORE.test(file))
    .map((file) => file.replace(/[/\\]dist[/\\][^/\\]+$/, ''));
}

let warned = false;

function warn(): void {
  if (warned || !otherCopy()) return;
  warned = true;
  const found = folders();
  const where = found.length > 1 ? ` (${found.join(', ')})` : '';
  process.emitWarning(
    `This program has loaded TensorFlow.js twice${where}: layers, optimizers and file:// of one copy are unknown to the other, so keep one ` +
      `(\`npm ls @tensorflow/tfjs-core\` shows who asks for which; this package works with ${tf.version_core}).`,
    { code: 'MAMBA2_TFJS_TWICE' },
  );
}

warn();
// what the program imports after this package is loaded by then
setImmediate(warn);

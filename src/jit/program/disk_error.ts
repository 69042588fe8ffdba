/** A file that TensorFlow or a program cannot write, told from memory that a device does not have: TensorFlow has one code for both. */
import { tmpdir } from 'node:os';
import { DeviceError } from '../../base/errors.js';

/** Words of the system for files, and of Node.js. */
const FULL =
  /No space left on device|Disk quota exceeded|File too large|Read-only file system|ENOSPC|EDQUOT|EFBIG|EROFS/;

/**
 * The error for a file that could not be written.
 * @param text TensorFlow's message, or the system's @param where what ran, to begin the message with
 * @returns null when the text is of another failure
 */
export function diskFull(text: string, where: string): DeviceError | null {
  if (!FULL.test(text)) return null;
  return new DeviceError(
    `${where} failed: a file could not be written (${FULL.exec(text)![0]}), most likely in the temporary folder ${tmpdir()}. ` +
      'Free some space there, or name another in TMPDIR.',
    { text, folder: tmpdir() },
  );
}

/** A page is not told how much memory there is. */
import { DeviceError } from '../../../base/errors.js';

/** What one WebAssembly memory can hold. */
const MOST = 2 ** 32;

export const totalMemory = (): number => MOST;
export const freeMemory = (): number => MOST;

/** @throws DeviceError for more than WebAssembly can address */
export function checkMemory(bytes: number, what: string, advice: string): void {
  if (bytes <= MOST) return;
  throw new DeviceError(
    `${what} would take at least ${(bytes / 2 ** 30).toFixed(1)} GiB; a page has 4 GiB. ${advice}`,
    {
      needed: bytes,
      total: MOST,
    },
  );
}

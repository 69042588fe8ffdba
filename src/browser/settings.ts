/** What pages may set: where models and WebAssembly binaries are, and whether what was fetched is kept. */
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';

/** Settings of the browser's build. */
export interface BrowserSettings {
  /** Address that relative names of folders begin at. Default: the page's. */
  base?: string;
  /** The hub. Default https://huggingface.co */
  hub?: string;
  /** Where the models are that travel in this package, by whose name they are asked for. Default: beside the package's files. */
  packaged_models?: string;
  /** Folder of TensorFlow.js' *.wasm files. Default: the folder of this code. */
  wasm_folder?: string;
  /** Threads that compute on WebAssembly, in pages that are cross-origin isolated. Default: one for each core, four at most */
  threads?: number;
  /** Name under which fetched bytes are kept (Cache API; where it refuses, the page's private files). false keeps nothing. Default 'tfjs-mamba2' */
  cache?: string | false;
}

const address = kinds.named('an address, such as https://host/models/ or /models/', kinds.text);

const TABLE = new OptionTable<BrowserSettings>(
  'configureBrowser()',
  {
    base: { kind: address },
    hub: { kind: address },
    packaged_models: { kind: address },
    wasm_folder: { kind: address },
    threads: { kind: kinds.integer({ min: 1 }) },
    cache: { kind: kinds.named('a name, or false', kinds.either(kinds.boolean, kinds.text)), default: 'tfjs-mamba2' },
  },
  {
    others: {
      remoteHost: 'hub',
      localModelPath: 'base',
      useBrowserCache: 'cache',
      cacheKey: 'cache',
      wasmPaths: 'wasm_folder',
      endpoint: 'hub',
    },
  },
);

let settings: BrowserSettings = {};

/**
 * Sets what is given, for models loaded from now on.
 * @example configureBrowser({ hub: 'https://hub.example', wasm_folder: '/wasm/' });
 */
export function configureBrowser(options: BrowserSettings): void {
  TABLE.check(options);
  settings = { ...settings, ...options };
}

/** The settings as they are. */
export function browserSettings(): Readonly<BrowserSettings> {
  return settings;
}

const folder = (url: string): string => (url.endsWith('/') ? url : `${url}/`);

/** The address that relative names begin at. */
export function baseAddress(): string {
  const page = (globalThis as { document?: { baseURI: string } }).document?.baseURI ?? globalThis.location.href;
  return settings.base === undefined ? page : new URL(folder(settings.base), page).href;
}

/** A setting as the address of a folder. */
export function addressOf(setting: string): string {
  return folder(new URL(setting, baseAddress()).href);
}

/** Options that name a model on the hub, and their table. */
import * as kinds from '../base/option_kinds.js';
import { omit } from '../base/omit.js';
import type { OptionRules, OtherNames } from '../base/options.js';

/** What transformers.js tells of a file on its way. */
export interface DownloadProgress {
  status: 'initiate' | 'download' | 'progress' | 'done';
  /** the model, as it was asked for */
  name: string;
  file: string;
  /** with 'progress': bytes that are there, bytes in all, and per cent */
  loaded?: number;
  total?: number;
  progress?: number;
}

/** Options that name a model on the hub; those of Python's from_pretrained. */
export interface HubOptions {
  /** branch, tag or commit; default 'main' */
  revision?: string;
  /** root of the cache; default as huggingface_hub: HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub */
  cache_dir?: string;
  /** true never uses the network; default: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE */
  local_files_only?: boolean;
  /** access token; default: HF_TOKEN, or the one that `hf auth login` saved */
  token?: string;
  /** the hub's address; default: HF_ENDPOINT or https://huggingface.co */
  endpoint?: string;
  /** ends downloads by throwing its reason */
  signal?: AbortSignal;
  /** called as bytes arrive, for all files together */
  on_progress?: (progress: { file: string; written: number; total: number }) => void;
  /** the same, told as transformers.js tells it, file by file */
  progress_callback?: (progress: DownloadProgress) => void;
  /** called when the network fails and the cache serves instead */
  on_warning?: (message: string) => void;
  /** milliseconds before a broken download is tried again; default 500 */
  retry_delay?: number;
}

/** Rules of HubOptions. */
export const HUB_RULES: OptionRules<HubOptions> = {
  // what they hold is judged by resolveModel, which knows what a revision and an address are
  revision: { kind: kinds.anyText },
  cache_dir: { kind: kinds.text },
  local_files_only: { kind: kinds.boolean },
  token: { kind: kinds.anyText },
  endpoint: { kind: kinds.text },
  signal: { kind: kinds.abortSignal },
  on_progress: { kind: kinds.func },
  progress_callback: { kind: kinds.func },
  on_warning: { kind: kinds.func },
  retry_delay: { kind: kinds.number({ min: 0 }), default: 500 },
};

/** Names of HubOptions. */
export const HUB_NAMES = Object.keys(HUB_RULES) as (keyof HubOptions)[];

/** Options without the hub's. */
export function withoutHub<O extends object>(options: O): Omit<O, keyof HubOptions> {
  return omit(options as O & HubOptions, ...HUB_NAMES);
}

/** What transformers and transformers.js call otherwise, or have besides. */
export const HUB_OTHERS: OtherNames = {
  use_auth_token: 'token',
  hf_token: 'token',
  branch: 'revision',
  abort_signal: 'signal',
  force_download: { why: 'a file is fetched when its checksum is not in the cache; remove it there', off: [false] },
  resume_download: { why: 'downloads always go on where they stopped', off: [true, false] },
  proxies: { why: 'set HTTPS_PROXY and NO_PROXY in the environment' },
  subfolder: { why: 'fetch with resolveModel() and pass the folder', off: [''] },
  trust_remote_code: { why: 'no code of a repository is ever run', off: [false] },
  code_revision: { why: 'no code of a repository is ever run' },
  mirror: 'endpoint',
};

/**
 * What a set-up downloads, all pinned by hash: three npm packages and one wheel (for a GPU also NVIDIA's own wheels).
 * The wheel is only unpacked for the libraries in it, so its Python version does not matter and is fixed here: whatever
 * Python 3 runs pip, the same file comes.
 */
import { TENSORFLOW_VERSION, TFJS_NODE_VERSION, type RuntimeVariant } from './paths.js';

/** An npm package of exactly one version. */
export interface NpmSource {
  name: string;
  version: string;
  /** Subresource integrity of its tarball, as in a package-lock. */
  integrity: string;
}

/**
 * tfjs-node-gpu (which runs on a CPU as well: the library decides), the two packages that it loads at run time, and the
 * headers of Node-API. Everything else that its package.json asks for serves its own installer, which is not used.
 */
export const NPM_SOURCES: readonly NpmSource[] = [
  {
    name: '@tensorflow/tfjs-node-gpu',
    version: TFJS_NODE_VERSION,
    integrity: 'sha512-p//NN6DGiN4hInUmIkRffaFVMcdTREUMjPyjW04J7OXvB2zBlQimj61eFKSgRrH3f5TnOfKzb0n56he/B6a4bw==',
  },
  {
    name: 'google-protobuf',
    version: '3.21.4',
    integrity: 'sha512-MnG7N936zcKTco4Jd2PX2U96Kf9PxygAPKBug+74LHzmHXmceN16MmRcdgZv+DGef/S9YvQAfRsNCn4cjf9yyQ==',
  },
  {
    name: 'progress',
    version: '2.0.3',
    integrity: 'sha512-7PiHtLll5LdnKIMw100I+8xJXR5gW2QwWYkT6iJva0bXitZKa/XMrSbdmg3r2Xnaidz9Qumd0VPaMrZlF9V9sA==',
  },
  {
    name: 'node-api-headers',
    version: '1.9.0',
    integrity: 'sha512-2oNILP4jXwRB4ywnYKjVk1YyJ96n2D4EOVJO6S3oYZ5PtbJrw3Yt9TpAuX3nBLMuzn74rnfGQrv13pS9vC+YiA==',
  },
];

/** A wheel of exactly one version. */
export interface WheelSource {
  name: string;
  version: string;
  sha256: string;
  megabytes: number;
}

/** The Python that the wheel is said to be for, and the platforms it may carry in its name. */
export const WHEEL_PYTHON = '3.12';
export const WHEEL_PLATFORMS: Readonly<Record<string, readonly string[]>> = {
  'linux-x64': ['manylinux_2_27_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64'],
  'linux-arm64': ['manylinux_2_27_aarch64', 'manylinux2014_aarch64'],
};

const WHEELS: Readonly<Record<string, WheelSource>> = {
  'linux-x64/cpu': {
    name: 'tensorflow-cpu',
    version: TENSORFLOW_VERSION,
    sha256: 'dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb',
    megabytes: 261,
  },
  'linux-x64/gpu': {
    name: 'tensorflow',
    version: TENSORFLOW_VERSION,
    sha256: 'b3b95643c4e70eb925839938fb35cbe142f317ec84af6844ee61513713bb13c0',
    megabytes: 546,
  },
  'linux-arm64/cpu': {
    name: 'tensorflow',
    version: TENSORFLOW_VERSION,
    sha256: 'b07d15737406533898e36c7ef7944b1be18e9028dc521b9229952c537bbc5552',
    megabytes: 269,
  },
};

/** The wheel for this machine, or null when TensorFlow publishes none. */
export function wheelFor(
  variant: RuntimeVariant,
  platform = `${process.platform}-${process.arch}`,
): WheelSource | null {
  return WHEELS[`${platform}/${variant}`] ?? null;
}

/**
 * CUDA 12 as TensorFlow's own `tensorflow[and-cuda]` asks for it. Each wheel unpacks to `nvidia/<folder>`, where the
 * gpu library looks for it (its run path names `../nvidia`).
 */
export const NVIDIA_WHEELS: readonly WheelSource[] = [
  ['nvidia-cublas-cu12', '12.9.3.13', 'd7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72', 554],
  ['nvidia-cuda-cupti-cu12', '12.8.90', 'ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182', 9],
  ['nvidia-cuda-nvcc-cu12', '12.9.86', '5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0', 38],
  ['nvidia-cuda-nvrtc-cu12', '12.9.86', '210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4', 85],
  ['nvidia-cuda-runtime-cu12', '12.9.79', '25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3', 3],
  ['nvidia-cudnn-cu12', '9.28.0.42', '9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375', 683],
  ['nvidia-cufft-cu12', '11.4.1.4', 'c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28', 191],
  ['nvidia-curand-cu12', '10.3.10.19', '49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e', 65],
  ['nvidia-cusolver-cu12', '11.7.5.82', '15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88', 322],
  ['nvidia-cusparse-cu12', '12.5.10.65', '73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78', 349],
  ['nvidia-nccl-cu12', '2.32.3', 'bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c', 335],
  ['nvidia-nvjitlink-cu12', '12.9.86', 'e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9', 37],
].map(([name, version, sha256, megabytes]) => ({ name, version, sha256, megabytes }) as WheelSource);

#!/usr/bin/env bash
# Packs what a CUDA machine without network needs to run this project, in pieces of at most 44 MB:
#   OUT/tf.NN      libtensorflow with CUDA (of the tensorflow 2.21.0 wheel) and libcudart 12; with ARCH=90 for GPUs of compute
#                  capability 9.0 alone, which is half as much (slim.py)
#   OUT/rt.tar.xz  node, the production packages, tsx and mocha, and the built addon
# Usage: scripts/cuda/pack.sh OUT        (needs npm ci and `mamba2 setup` done; about 5 minutes)
# There: unpack rt.tar.xz to /tmp/rt, put the pieces in /tmp/p, then `. scripts/cuda/unpack.sh` and `. scripts/cuda/env.sh`.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for tool in zstd xz unzip rsync; do
  command -v "$tool" > /dev/null || { echo "pack.sh: $tool is missing; install it and try again" >&2; exit 1; }
done
if [ ! -e "$out/tf.00" ]; then
  python3 -m pip download -q --no-deps --only-binary=:all: -d "$tmp" tensorflow==2.21.0 nvidia-cuda-runtime-cu12==12.5.82
  (cd "$tmp" && unzip -q tensorflow-*.whl 'tensorflow/libtensorflow_cc.so.2' 'tensorflow/libtensorflow_framework.so.2' &&
    unzip -q nvidia_cuda_runtime*.whl 'nvidia/cuda_runtime/lib/*' && cp nvidia/cuda_runtime/lib/libcudart.so.12 tensorflow/)
  [ -n "${ARCH:-}" ] && (cd "$tmp/tensorflow" && python3 "$root/scripts/cuda/slim.py" "$ARCH" libtensorflow_cc.so.2 libtensorflow_framework.so.2)
  tar -C "$tmp/tensorflow" -cf - libtensorflow_cc.so.2 libtensorflow_framework.so.2 libcudart.so.12 |
    zstd -T0 -9 --long=27 -q | split -b 42M -d - "$out/tf."
fi
rt="$tmp/rt"
mkdir -p "$rt/node_modules"
cp "$(command -v node)" "$(command -v zstd)" "$rt/"
for lib in liblz4.so.1 liblzma.so.5 libz.so.1; do cp -L "/lib/$(uname -m)-linux-gnu/$lib" "$rt/"; done
runtime=$(cd "$root" && node --import tsx -e "import('./src/runtime/paths.ts').then((m) => console.log(m.runtimeDir('cpu') ?? ''))")
[ -n "$runtime" ] || { echo 'pack.sh: the TensorFlow runtime is not set up; run `node bin/mamba2.js setup`' >&2; exit 1; }
rsync -a --exclude=deps --exclude=files.json "$runtime/" "$rt/runtime/" # files.json has the hashes of this machine's library
sed -i 's/"variant": "cpu"/"variant": "gpu"/; s/"tensorflow-cpu /"tensorflow /' "$rt/runtime/runtime.json" # its library is another one there
drop=(--exclude='*.map' --exclude='*.d.ts' --exclude='*fesm*' --exclude='*es2017*' --exclude='/@tensorflow/**/*.min.js' --exclude='tf.js' --exclude='*.md'
  --exclude='tokenizers.*darwin*' --exclude='tokenizers.*win32*' --exclude='tokenizers.*musl*' --exclude='tokenizers.*android*'
  --exclude='tokenizers.*arm*' --exclude='tokenizers.*freebsd*' --exclude='/*typescript*' --exclude='/*eslint*' --exclude='/prettier'
  --exclude='/@eslint*' --exclude='/@types' --exclude='/@tensorflow/tfjs-node-gpu' --exclude='/@tensorflow/*/src' --exclude='*_test.js'
  --exclude='/.bin' --exclude='/.cache')
(cd "$root" && node scripts/cuda/packages.mjs) > "$tmp/packages"
rsync -a -r "${drop[@]}" --files-from="$tmp/packages" "$root/node_modules/" "$rt/node_modules/"
tar -C "$rt" -cf - . | xz -T0 -6 > "$out/rt.tar.xz"
ls -la "$out"

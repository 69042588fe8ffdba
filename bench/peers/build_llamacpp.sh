#!/usr/bin/env bash
# Builds llama.cpp's llama-bench, llama-batched-bench, llama-server and llama-quantize for this processor, from the copy inside the source package of
# llama-cpp-python, into the cache folder. Needs python3 with venv, cmake, a C++ compiler; takes minutes to half an hour.
#   bench/peers/build_llamacpp.sh [FOLDER]
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tfjs-mamba2/bench/llama.cpp}
version=0.3.36
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q scikit-build-core
"$work/venv/bin/pip" download -q --no-deps --no-binary :all: --no-build-isolation -d "$work" "llama-cpp-python==$version"
tar xzf "$work"/llama_cpp_python-$version.tar.gz -C "$work"
source="$work/llama_cpp_python-$version/vendor/llama.cpp"
cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
nice -n 19 cmake --build "$work/build" -j "${JOBS:-2}" --target llama-bench llama-batched-bench llama-quantize llama-server
rm -rf "$folder.new"
mkdir -p "$folder.new"
cp "$work"/build/bin/llama-{bench,batched-bench,quantize,server} "$folder.new/"
# the converter of checkpoints, with what it imports
cp -r "$source/convert_hf_to_gguf.py" "$source/conversion" "$source/gguf-py" "$folder.new/"
mkdir -p "$folder.new/models"
cp "$source/models/ggml-vocab-gpt-neox.gguf" "$folder.new/models/"
echo "llama-cpp-python $version" > "$folder.new/VERSION"
rm -rf "$folder"
mv "$folder.new" "$folder"
echo "$folder"

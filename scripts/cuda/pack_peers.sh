#!/usr/bin/env bash
# Lays what bench/cuda/peers*.py compare with into one folder, for a CUDA machine without network (it has torch, Triton and transformers itself):
# the Python and Triton sources of the authors' mamba_ssm, einops, and causal_conv1d built for GPUs of compute capability 9.0. About 7 MB.
# Usage: scripts/cuda/pack_peers.sh OUT        (.gpu/ssm, which git ignores)
# PYTHON (python3): any Python with pip, torch, setuptools and wheel, to fetch sources; nothing of them is built there.
# causal_conv1d is compiled against the torch, CUDA and Python of that machine (TORCH, CUDA, PY below), whose headers and compiler are fetched
# from the package index (750 MB): needs g++ and that Python with its headers (PYTHON_THERE, python$PY); about 3 minutes on one core. CONV=0 leaves it out: PyTorch's convolution then.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
python=${PYTHON:-python3} TORCH=${TORCH:-2.11.0} CUDA=${CUDA:-13.0} PY=${PY:-3.12}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
for package in mamba_ssm==2.3.2.post1 causal_conv1d==1.7.0; do
  MAMBA_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE \
    "$python" -m pip download -q --no-deps --no-binary=:all: --no-build-isolation -d . "$package"
done
"$python" -m pip download -q --no-deps -d . einops==0.8.2
for sources in ./*.tar.gz; do tar xf "$sources"; done
unzip -q einops-*.whl
rm -rf "$out"/{mamba_ssm,causal_conv1d,einops}
for package in mamba_ssm-*/mamba_ssm causal_conv1d-*/causal_conv1d einops; do cp -r "$package" "$out/"; done
rm -rf "$out"/mamba_ssm/ops/{tilelang,cute}
[ "${CONV:-1}" = 0 ] && exit

tag=${PY/./}
wheels() { "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$PY" --platform manylinux_2_28_x86_64 \
  --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 -d . "$@"; }
wheels "torch==$TORCH"
wheels "nvidia-cuda-nvcc==$CUDA.*" "nvidia-nvvm==$CUDA.*" "nvidia-cuda-crt==$CUDA.*" "nvidia-cuda-runtime==$CUDA.*" "nvidia-cuda-cccl==$CUDA.*" \
  nvidia-cublas nvidia-cusparse nvidia-cusolver
unzip -q torch-*.whl 'torch/include/*'
for wheel in nvidia_*.whl; do unzip -qo "$wheel" '*/bin/*' '*/include/*' '*/nvvm/*' '*/lib/libcudart*' 2> /dev/null || [ $? = 11 ]; done
cu=$(echo "$tmp"/nvidia/cu*) && chmod -R u+x "$cu/bin" "$cu/nvvm/bin"
flags=(-isystem torch/include -isystem torch/include/torch/csrc/api/include -isystem "$cu/include"
  -isystem "$("${PYTHON_THERE:-python$PY}" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
  -DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=causal_conv1d_cuda -std=c++17 -O3)
# half of the variants, and the minutes they take to compile, are of float16, which nothing here uses
sed -i '/^template.*at::Half/d' causal_conv1d-1.7.0/csrc/*.cu
sed -i 's/if (\([IW]TYPE\) == at::ScalarType::Half)/if (false)/; s/= at::Half;/= at::BFloat16;/' causal_conv1d-1.7.0/csrc/causal_conv1d.cpp
# flags of its setup.py
device=(-U__CUDA_NO_{HALF,BFLOAT16}_{OPERATORS,CONVERSIONS}__ -U__CUDA_NO_BFLOAT162_{OPERATORS,CONVERSIONS}__
  --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math -gencode arch=compute_90,code=sm_90 -Xcompiler -fPIC)
for part in fwd bwd update; do "$cu/bin/nvcc" "${flags[@]}" "${device[@]}" -c "causal_conv1d-1.7.0/csrc/causal_conv1d_$part.cu" -o "$part.o"; done
g++ "${flags[@]}" -fPIC -c causal_conv1d-1.7.0/csrc/causal_conv1d.cpp -o host.o
# torch's libraries are loaded before this one is: their names suffice
libraries=(c10 torch torch_cpu torch_python c10_cuda torch_cuda)
mkdir names
for name in "${libraries[@]}"; do g++ -shared -Wl,-soname,"lib$name.so" -o "names/lib$name.so" -x c++ /dev/null; done
g++ -shared -s -o "$out/causal_conv1d_cuda.cpython-$tag-x86_64-linux-gnu.so" ./*.o -Lnames -Wl,--no-as-needed "${libraries[@]/#/-l}" "$cu"/lib/libcudart.so.*
du -sh "$out"

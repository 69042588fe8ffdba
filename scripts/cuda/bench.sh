#!/usr/bin/env bash
# The figures of bench/cuda/README.md, peers beside them, as JSON lines; about 15 minutes.
# Usage: . scripts/cuda/env.sh; scripts/cuda/bench.sh [FOLDER of mamba_ssm's sources and einops]
set -uo pipefail
run() { node --import tsx bench/cuda/run.ts "$@"; }
for model in 130m 2.7b 7b; do run --model $model --prompt 2048 --block 64; done
run --model 7b --int4 --prompt 0 --block 64 --only-blocks
python3 bench/cuda/peers.py --models 130m,2.7b,7b --tokens 32
[ -n "${1:-}" ] && PYTHONPATH=$1 python3 bench/cuda/peers_ssm.py --models 130m,2.7b,7b --configs 3 --tokens 64
run --model 2.7b --prompt 0 --block 16 --batches 8,32,64,128 --state bfloat16 --only-blocks --tokens 32
run --model 130m --prompt 0 --block 16 --batches 8,32,64,128 --only-blocks --tokens 64
node --import tsx bench/cuda/train.ts --steps 8

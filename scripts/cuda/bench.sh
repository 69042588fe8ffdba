#!/usr/bin/env bash
# The figures of bench/cuda/README.md as JSON lines: ours and those of the peers, on the same card.
# Usage: . scripts/cuda/env.sh; scripts/cuda/bench.sh ours|train|peers|all [FOLDER of scripts/cuda/pack_peers.sh]      (.gpu/ssm)
# Each part takes at most 580 s ($BENCH_SECONDS); a stage that fails or outlasts its own limit leaves a line and the rest runs. The lines are also in
# $BENCH_OUT/lines.jsonl ($OUT/bench, else /tmp/bench), appended, errors in log.txt; then: npx tsx bench/cuda/table.ts lines.jsonl
# `peers` needs no TensorFlow: torch, Triton and transformers of python3, and the folder. It leaves $BENCH_OUT/tuned.tgz, which variants of its Triton
# kernels are best on that card; put into the folder it saves the next run about 60 s of compiling all of them.
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=${2:-.gpu/ssm}
export BENCH_OUT=${BENCH_OUT:-${OUT:-/tmp}/bench} PYTHONDONTWRITEBYTECODE=1
mkdir -p "$BENCH_OUT"
stage() { python3 scripts/cuda/stage.py "$@"; }
run() { stage "$1" "$2" node --import tsx bench/cuda/run.ts "${@:3}"; }
ssm() { stage "$1" "$2" python3 bench/cuda/peers_ssm.py "$folder" "${@:3}"; }
transformers() { stage "$1" "$2" python3 bench/cuda/peers.py "${@:3}"; }

XDG_CACHE_HOME=$(mktemp -d)
export XDG_CACHE_HOME
# Behind each stage: the seconds it took on an H100 with 16 cores.
ours() {
  run '130m' 80 --model 130m --prompt 2048 --block 64                                                                # 21 s
  run '2.7b' 110 --model 2.7b --prompt 2048 --block 64                                                               # 55
  run '7b' 120 --model 7b --prompt 2048 --block 64                                                                   # 67
  run '7b int4' 60 --model 7b --int4 --prompt 0 --block 64 --only-blocks                                             # 46
  for model in '130m' '2.7b' '7b' '7b --int4'; do
    run "$model, states in bf16" 70 --model $model --state bfloat16 --prompt 0 --block 64 --only-blocks              # 12, 25, 40, 40
  done
  run '2.7b batches' 130 --model 2.7b --prompt 0 --block 16 --batches 8,32,64,128 --state bfloat16 --only-blocks --tokens 32 # 107
  run '130m batches' 70 --model 130m --prompt 0 --block 16 --batches 8,32,64,128 --state bfloat16 --only-blocks --tokens 64  # 44
  # compiled programs and graphs are kept, and there the second time
  for start in first second; do
    run "2.7b, $start start" 60 --model 2.7b --prompt 2048 --block 64 --rounds 1 --tokens 64 --cache                 # 30
  done
}
train() {
  stage 'train' 200 node --import tsx bench/cuda/train.ts --steps 8                                                  # 130
}
peers() {
  batches=1,8,32,64,128
  [ -e "$folder/tuned.tgz" ] && tar xzf "$folder/tuned.tgz" -C "$HOME"
  # the first to use a kernel compiles all its variants, side by side on all cores; the others find the best on the disk
  ssm 'mamba_ssm' 120 --models 130m,2.7b --work prefill,decode --batches $batches                                    # 54 s
  ssm 'mamba_ssm train' 110 --models 130m --work train                                                               # 59
  ssm 'mamba_ssm 7b' 70 --models 7b --work prefill,decode,int4                                                       # 27
  transformers 'transformers' 100 --models 130m,2.7b --work prefill,decode --batches $batches --tokens 16            # 74
  transformers 'transformers train' 90 --models 130m --work train --steps 2                                          # 52
  transformers 'transformers + kernels' 80 --kernels "$folder" --models 130m,2.7b --work prefill,decode --batches $batches --tokens 16 # 58
  transformers 'transformers + kernels train' 60 --kernels "$folder" --models 130m --work train                      # 22
  transformers 'transformers + kernels 7b' 50 --kernels "$folder" --models 7b --work prefill,decode --tokens 16      # 21
  transformers 'transformers 7b' 60 --models 7b --work prefill,decode --tokens 16                                    # 30
  (cd "$HOME" && find .triton -name '*.autotune.json' | tar czf "$BENCH_OUT/tuned.tgz" -T -)
}
part() {
  export BENCH_PART=$1 BENCH_END=$(($(date +%s) + ${BENCH_SECONDS:-580}))
  "$1"
}
case ${1:-} in
  ours | train | peers) part "$1" ;;
  all) part ours && part train && part peers ;;
  *) echo 'usage: scripts/cuda/bench.sh ours|train|peers|all [FOLDER]' >&2 && exit 2 ;;
esac

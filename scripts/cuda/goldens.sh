#!/usr/bin/env bash
# All suites of golden values on this machine's GPU (and nowhere else), float32 without TF32, in parallel; then differences.ts with TF32 off and on,
# whole_model.ts (kernels too large for the goldens) and sampled.ts (the same seed on the CPU).
# Usage: . scripts/cuda/env.sh; scripts/cuda/goldens.sh [SECONDS]      (18 processes; about 150 s on 16 cores)
set -uo pipefail
limit=${1:-300}
logs=$(mktemp -d)
native=(--grep '\[(wasm|cpu)\]' --invert)
suite() {
  local name=$1; shift
  env TEST_DEVICE=gpu NVIDIA_TF32_OVERRIDE=0 timeout "$limit" node node_modules/mocha/bin/mocha.js --timeout 400000 --reporter dot "$@" \
    > "$logs/$name" 2>&1 || echo "FAILED" >> "$logs/$name"
}
suite forward test/models/mamba2/goldens.test.ts "${native[@]}" &
suite compiled test/engine/compiled/compiled_engine.test.ts "${native[@]}" &
suite quantised test/models/mamba2/quantized.test.ts "${native[@]}" &
suite perplexity test/models/mamba2/quantized_quality.test.ts &
suite gradients test/training/gradients.test.ts test/training/step.test.ts "${native[@]}" &
suite lora test/peft/goldens.test.ts test/peft/quantized.test.ts "${native[@]}" &
suite pipelines test/pipelines/perplexity.test.ts test/pipelines/pipelines.test.ts "${native[@]}" &
suite layers test/layers/*.test.ts "${native[@]}" &
suite assembled test/kernels/assembled.test.ts &
suite matrices test/quant/matrix.test.ts test/engine/state.test.ts "${native[@]}" &
for engine in eager compiled; do
  suite "trained-model-$engine" test/models/mamba2/books_model.test.ts --grep "$engine" &
  for golden in greedy beam books; do
    suite "generation-$engine-$golden" test/generation/goldens.test.ts --grep "$engine engine. (generate-)?$golden" &
  done
done
wait
for log in "$logs"/*; do
  echo "$(basename "$log"): $(grep -E 'passing|failing|pending|FAILED' "$log" | tr -s ' \n' ' ')"
  # the names of all that failed, and the first errors
  grep -A 2 -E '^  +[0-9]+\) ' "$log"
  grep -A 400 failing "$log" | head -60
done
env NVIDIA_TF32_OVERRIDE=0 node --import tsx bench/cuda/differences.ts
node --import tsx bench/cuda/differences.ts
env NVIDIA_TF32_OVERRIDE=0 node --import tsx bench/cuda/whole_model.ts
node --import tsx bench/cuda/sampled.ts
failed=$(grep -l FAILED "$logs"/* | wc -l)
rm -rf "$logs"
exit "$failed"

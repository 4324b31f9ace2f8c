#!/usr/bin/env bash
# The paper's seven benchmarks for any models: responses, scores by each benchmark's own rules and by this project's, and
# a report. Responses are kept as they come: the same command goes on where it was stopped, and a new model, or another
# benchmark, adds to what is there.
#
#   MODEL=Qwen/Qwen2.5-VL-7B-Instruct bash recipes/evaluate.sh
#   MODEL="base=Qwen/Qwen2.5-VL-7B-Instruct grpo=outputs/qwen7b/model" NAME=compared bash recipes/evaluate.sh
#   MODEL=… BENCHMARKS=mathvista,mmmu DATA=copies bash recipes/evaluate.sh --prompts ours --samples 4
#   MODEL=… RAY_ADDRESS=auto REPLICAS=16 bash recipes/evaluate.sh   # over the GPUs of a Ray cluster
#   MODEL=… DRY_RUN=1 bash recipes/evaluate.sh                      # check all, ask nothing
#
# Arguments are options of `avar evaluate`. docs/benchmarks.md has them all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${MODEL:?MODEL names what is evaluated: a directory, a hub name, or several as NAME=MODEL}"
NAME=${NAME:-benchmarks}
OUT=${OUT:-outputs/$NAME}
BENCHMARKS=${BENCHMARKS:-all}
DATA=${DATA:-}                       # a folder of local copies; "": each benchmark's own on the hub
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1} # GPUs that share a model
GPUS=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c ^GPU || true)
REPLICAS=${REPLICAS:-$((GPUS > TENSOR_PARALLEL ? GPUS / TENSOR_PARALLEL : 1))} # engines side by side
STAGE_LIMIT=${STAGE_LIMIT:-14d}
HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-0}
source recipes/stages.sh

recipe_stages() {
  stage_again benchmarks "$PYTHON" -m avar_rl.evaluation $MODEL --benchmarks "$BENCHMARKS" --out "$OUT" \
    ${DATA:+--benchmark-data "$DATA"} --tensor-parallel "$TENSOR_PARALLEL" --replicas "$REPLICAS" "$@"
}

run_recipe "$@"

#!/usr/bin/env bash
# The AVAR recipe for Qwen2.5-VL-7B on GPUs: the same stages as avar_tiny.sh, full fine-tuning on eight 80 GB cards.
#
#   SFT_DATA=sft.parquet RL_DATA=rl.parquet bash recipes/avar_qwen7b.sh
#   NNODES=2 RAY_ADDRESS=auto … bash recipes/avar_qwen7b.sh      # on the head of a running Ray cluster
#   DRY_RUN=1 bash recipes/avar_qwen7b.sh                        # check all, print the estimates, run nothing
#
# SFT_DATA and RL_DATA are parquet or JSONL files, or hub names; *_COLUMNS say which columns to read. The RL data also
# gives the test split, unless TEST_DATA names a file of RL rows. SFT_ROWS names chat rows that are ready, those of
# synthesize_qwen7b.sh for example, to be used instead of SFT_DATA. Arguments are overrides of the GRPO stage.
# All knobs, several nodes, other models: docs/gpu_recipes.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-qwen7b}
OUT=${OUT:-outputs/$NAME}
CONFIG=qwen7b # recipes/config/qwen7b_{sft,grpo}.yaml
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}
NGPUS=${NGPUS:-8}
LORA_RANK=${LORA_RANK:-0}                # 0: full fine-tuning
MAX_PIXELS=${MAX_PIXELS:-1003520}        # 1280 image tokens of Qwen2.5-VL
MAX_SFT=${MAX_SFT:-8192}                 # tokens of a whole conversation of the cold start
TOKENS_PER_GPU=${TOKENS_PER_GPU:-16384}  # of one micro-batch; raised to the longest sequence
GPU_MEMORY_GB=${GPU_MEMORY_GB:-80}       # what the estimate assumes where nvidia-smi cannot be asked
source recipes/gpu_stages.sh

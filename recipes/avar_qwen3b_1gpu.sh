#!/usr/bin/env bash
# The AVAR recipe on one GPU: Qwen2.5-VL-3B with LoRA, from 24 GB; larger models by knobs.
#
#   SFT_DATA=sft.parquet RL_DATA=rl.parquet bash recipes/avar_qwen3b_1gpu.sh
#   MODEL=Qwen/Qwen2.5-VL-7B-Instruct NAME=qwen7b_lora TOKENS_PER_GPU=16384 GPU_MEMORY_GB=80 \
#     bash recipes/avar_qwen3b_1gpu.sh                           # 7B with LoRA on one 80 GB card
#   MODEL=Qwen/Qwen3-VL-4B-Instruct NAME=qwen3vl4b … bash recipes/avar_qwen3b_1gpu.sh
#   DRY_RUN=1 bash recipes/avar_qwen3b_1gpu.sh                   # check all, print the estimates, run nothing
#
# Data, knobs and what fits which card: docs/gpu_recipes.md. Arguments are overrides of the GRPO stage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-qwen3b_1gpu}
OUT=${OUT:-outputs/$NAME}
CONFIG=qwen3b # recipes/config/qwen3b_{sft,grpo}.yaml
MODEL=${MODEL:-Qwen/Qwen2.5-VL-3B-Instruct}
NGPUS=${NGPUS:-1}
LORA_RANK=${LORA_RANK-64}                # 0: full fine-tuning, which needs OFFLOAD=1 on one card
MAX_PIXELS=${MAX_PIXELS:-602112}         # 768 image tokens of Qwen2.5-VL
MAX_SFT=${MAX_SFT:-4096}                 # tokens of a whole conversation of the cold start
TOKENS_PER_GPU=${TOKENS_PER_GPU:-8192}   # of one micro-batch; raised to the longest sequence
GPU_MEMORY_GB=${GPU_MEMORY_GB:-24}       # what the estimate assumes where nvidia-smi cannot be asked
source recipes/gpu_stages.sh

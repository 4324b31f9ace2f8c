#!/usr/bin/env bash
# The miniature recipe on a cluster of two simulated nodes: with its own address, host name, processes and shared memory
# each, by Linux namespaces on this machine. Real Ray, real Slurm. Needs root, and 12 GB of memory; docs/cluster.md has
# what it printed.
#
#   bash benchmarks/cluster_trial.sh ray FOLDER     two Ray nodes: recipe from the head; SFT whose node is lost; rerun
#   bash benchmarks/cluster_trial.sh slurm FOLDER   Slurm (apt-get install slurmctld slurmd slurm-client munge): the job is
#                                                   preempted in mid-run and requeued
#
# FOLDER is made; run it again with another one. AVAR_VENV as for recipes/setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WHAT=${1:?ray or slurm} FOLDER=$(realpath -m "${2:?a folder for the trial}")
[ ! -e "$FOLDER" ] || { echo "$FOLDER is there: name another" >&2; exit 2; }
mkdir -p "$FOLDER"
source benchmarks/cluster_trial/nodes.sh
NODES_FOLDER=$FOLDER/nodes
trap 'stop_slurm; remove_nodes' EXIT
trap 'exit 143' TERM
stop_slurm() { :; }

export OUT=$FOLDER/run SFT_STEPS=${SFT_STEPS:-4} GRPO_STEPS=${GRPO_STEPS:-2} EVAL_LIMIT=8 NNODES=2
export DATA_ARGS="--sft-rows 200 --rl-rows 32"
export SFT_ARGS="data.train_batch_size=8 data.micro_batch_size_per_gpu=4 trainer.save_freq=1 trainer.n_gpus_per_node=1
  trainer.nnodes=2"
GRPO=(data.train_batch_size=4 actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.rollout.n=2
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4 trainer.nnodes=2 trainer.save_freq=1
  avar.guard.step_minutes=15 actor_rollout_ref.rollout.agent.num_workers=1)

said() { echo "$(date +%T) $*"; }

# wait_for SECONDS WHAT COMMAND…: until COMMAND succeeds.
wait_for() {
  local left=$1 what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    sleep 1
    [ $((left -= 1)) -gt 0 ] || { said "gave up waiting for $what"; return 1; }
  done
  said "$what"
}

checkpoint_of() { [ "$(cat "$OUT/checkpoints/$1/latest_checkpointed_iteration.txt")" -ge "$2" ]; } # STAGE STEP

steps_of() { # STAGE: the steps in its metrics, in the order in which they were written
  cat "$OUT"/logs/"$1".metrics*.jsonl 2>/dev/null | grep -oE '"step": *[0-9]+' | grep -oE '[0-9]+' | uniq | xargs || true
}

trial_ray() {
  source benchmarks/cluster_trial/ray_cluster.sh
  make_nodes "$NODES_FOLDER" node1 node2
  start_head && join_head node2
  said "two Ray nodes are up"
  RAY_ADDRESS=$HEAD_ADDRESS on node1 bash recipes/avar_tiny.sh "${GRPO[@]}" >"$FOLDER/first.log" 2>&1 &
  local recipe=$! status=0
  wait_for 300 "SFT has saved step 2" checkpoint_of sft 2
  said "node2's plug is pulled"
  pull_plug node2
  wait "$recipe" || status=$?
  said "the recipe ended with status $status; its last words:"
  tail -n 3 "$FOLDER/first.log"
  plug_in node2 && join_head node2
  said "node2 is back; the same command again"
  status=0
  RAY_ADDRESS=$HEAD_ADDRESS on node1 bash recipes/avar_tiny.sh "${GRPO[@]}" >"$FOLDER/second.log" 2>&1 || status=$?
  said "the recipe ended with status $status; SFT's steps: $(steps_of sft); GRPO's: $(steps_of grpo)"
}

trial_slurm() {
  source benchmarks/cluster_trial/slurm_cluster.sh
  make_nodes "$NODES_FOLDER" node1 node2
  start_slurm node1 node2
  said "Slurm: $(sinfo -h -p low -o '%D nodes %T')"
  export RAY_START="--num-gpus=1 --num-cpus=16 --object-store-memory=500000000"
  export RAY_worker_register_timeout_seconds=300
  sbatch --partition=low --output="$FOLDER/job.log" recipes/cluster/slurm.sh recipes/avar_tiny.sh "${GRPO[@]}"
  wait_for 400 "SFT has saved step 2" checkpoint_of sft 2
  said "a job of higher priority comes and takes both nodes"
  sbatch --partition=high --nodes=2 --exclusive --output="$FOLDER/high.log" --wrap "sleep 5"
  wait_for 150 "the recipe's job is in the queue again" restarted
  wait_for 500 "the recipe's job has ended" ended
  scontrol show job 1 | grep -oE '(JobState|Restarts|ExitCode)=[^ ]+' | xargs
  said "SFT's steps: $(steps_of sft); GRPO's: $(steps_of grpo)"
}

restarted() { [ "$(scontrol show job 1 | grep -oE 'Restarts=[0-9]+')" != Restarts=0 ]; }
ended() { scontrol show job 1 | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT)'; }

"trial_$WHAT"

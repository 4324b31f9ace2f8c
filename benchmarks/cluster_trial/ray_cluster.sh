# Sourced by the trials: a Ray cluster on simulated nodes (nodes.sh), closed by a token, as docs/cluster.md says it.

RAY=${AVAR_VENV:-$PWD/.venv}/bin/ray
HEAD_ADDRESS=$(address_of node1):6379
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$NODES_FOLDER/ray_token RAY_USAGE_STATS_ENABLED=0
export RAY_worker_register_timeout_seconds=300 # the simulated nodes share few processors

# One device a node, as Ray counts them; there is none behind it.
DEVICES=(--num-gpus=1 --num-cpus=16 --object-store-memory=500000000 --disable-usage-stats)

start_head() {
  [ -s "$RAY_AUTH_TOKEN_PATH" ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
  on node1 "$RAY" start --head --node-ip-address="$(address_of node1)" --port=6379 "${DEVICES[@]}" \
    >"$NODES_FOLDER/node1/ray.log" 2>&1 || { cat "$NODES_FOLDER/node1/ray.log" >&2; return 1; }
}

join_head() { # join_head NODE
  on "$1" "$RAY" start --address="$HEAD_ADDRESS" --node-ip-address="$(address_of "$1")" "${DEVICES[@]}" \
    >"$NODES_FOLDER/$1/ray.log" 2>&1 || { cat "$NODES_FOLDER/$1/ray.log" >&2; return 1; }
}

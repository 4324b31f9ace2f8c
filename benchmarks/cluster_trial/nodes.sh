# Sourced by the trials: machines of a small cluster, simulated on this one by Linux namespaces. Needs root.
#
# Each has its own address, host name, process tree, /dev/shm and /tmp/ray; the file system and the processors are shared.
# A node is one process, which is its process tree's first; all others end with it.

SWITCH=avartrial0
HOST_ADDRESS=10.77.0.1

address_of() { echo "10.77.0.1${1#node}"; } # node1: 10.77.0.11

# make_nodes FOLDER NAME…: a switch, and nodes that are connected to it.
make_nodes() {
  NODES_FOLDER=$1
  shift
  [ "$(id -u)" = 0 ] || { echo "the trial makes network namespaces: run it as root" >&2; exit 2; }
  mkdir -p "$NODES_FOLDER"
  ip link add "$SWITCH" type bridge && ip address add "$HOST_ADDRESS/24" dev "$SWITCH" && ip link set "$SWITCH" up
  local name
  for name in "$@"; do make_node "$name"; done
}

make_node() {
  local name=$1 folder=$NODES_FOLDER/$1 other
  mkdir -p "$folder/ray" /tmp/ray "/etc/netns/$name"
  {
    echo "127.0.0.1 localhost"
    for other in 1 2 3; do echo "$(address_of "node$other") node$other"; done
    echo "$HOST_ADDRESS controller"
  } >"/etc/netns/$name/hosts"
  ip netns add "$name"
  ip link add "$name-up" type veth peer name eth0 netns "$name"
  ip link set "$name-up" master "$SWITCH"
  ip -n "$name" address add "$(address_of "$name")/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" link set lo up
  plug_in "$name"
}

# plug_in NAME: starts a node that was made, also after it was lost.
plug_in() {
  local name=$1 folder=$NODES_FOLDER/$1
  ip link set "$name-up" up
  ip netns exec "$name" unshare --uts --ipc --mount --pid --fork --mount-proc bash -c "
    hostname $name
    mount -t tmpfs tmpfs /dev/shm
    mount --bind '$folder/ray' /tmp/ray
    echo up >'$folder/state'
    trap : TERM INT HUP
    while :; do sleep 3600 & wait; done" &
  local outer=$!
  echo "$outer" >"$folder/outer"
  until [ "$(cat "$folder/state" 2>/dev/null)" = up ]; do sleep 0.1; done
  pgrep -P "$outer" | head -n 1 >"$folder/pid"
}

# on NAME COMMAND…: runs a command on a node, in the current folder.
on() {
  local name=$1
  shift
  nsenter --target "$(cat "$NODES_FOLDER/$name/pid")" --net --uts --ipc --mount --pid --wd="$PWD" -- "$@"
}

# pull_plug NAME: the node is gone, and no other hears a word of it.
pull_plug() {
  ip link set "$1-up" down
  kill_processes "$1"
}

# kill_processes NAME: every process of the node dies at once, as where a container is removed; the kernel closes their
# connections, which the others notice.
kill_processes() {
  kill -9 "$(cat "$NODES_FOLDER/$1/pid")"
  wait "$(cat "$NODES_FOLDER/$1/outer")" 2>/dev/null || true
  rm -rf "${NODES_FOLDER:?}/$1/state" "$NODES_FOLDER/$1"/ray/*
}

remove_nodes() {
  local folder name
  for folder in "$NODES_FOLDER"/*/; do
    [ -e "$folder/outer" ] || continue
    name=$(basename "$folder")
    [ ! -e "$folder/state" ] || kill_processes "$name"
    ip netns delete "$name" 2>/dev/null || true
    ip link delete "$name-up" 2>/dev/null || true
    rm -rf "/etc/netns/${name:?}"
  done
  ip link delete "$SWITCH" 2>/dev/null || true
}

# shellcheck shell=bash
# The nodes of the demo and the benchmark: each a real daemon with a state folder of its own. Needs P2PLUS_BIN, WORK and net.sh.
# shellcheck disable=SC2034  # the steps use what is set here

NETWORK=demo
DEVICE=p2p-$NETWORK

# The process id of each daemon that has to be alive.
declare -A DAEMONS=()

# cli NODE ARGUMENT…: what a person would type on that node.
cli() {
  local home=$WORK/nodes/$1
  timeout --foreground 60 "$P2PLUS_BIN" --state-dir "$home/state" --run-dir "$home/run" --config "$home/p2plus.toml" "${@:2}"
}

# NODE_CONFIG is what it is configured with: nothing, unless a script wants something.
make_node() {
  mkdir -p "$WORK/nodes/$1/state" "$WORK/nodes/$1/run"
  printf '%s\n' "${NODE_CONFIG:-}" >"$WORK/nodes/$1/p2plus.toml"
}

start_daemon() {
  launch_daemon "$1" "$1"
  cli "$1" wait --for online --timeout 20 >/dev/null
}

# launch_daemon NODE PLACE ARGUMENT…: NODE's daemon in the namespace of PLACE. It is not waited for.
launch_daemon() {
  local home=$WORK/nodes/$1
  # Started as a job of its own, so that $! is the daemon and its end is seen.
  ip netns exec "$(ns "$2")" "$P2PLUS_BIN" --state-dir "$home/state" --run-dir "$home/run" --config "$home/p2plus.toml" \
    daemon "${@:3}" >>"$home/daemon.log" 2>&1 &
  DAEMONS[$1]=$!
}

stop_daemon() {
  local pid=${DAEMONS[$1]}
  unset "DAEMONS[$1]"
  kill "$pid"
  wait_until 10 "the daemon of $1 stops" process_ended "$pid"
}

# A killed daemon of ours stays a zombie until the shell looks at its jobs (proc(5), the field after the name in stat).
process_ended() {
  local state
  state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 0
  [ "${state:0:1}" = Z ]
}

daemons_live() {
  local node
  for node in "${!DAEMONS[@]}"; do
    if process_ended "${DAEMONS[$node]}"; then
      note "the daemon of $node is dead"
      return 1
    fi
  done
}

start_founder() {
  make_node founder
  cli founder init $NETWORK --name founder --no-start >"$WORK/nodes/founder/init.log"
  start_daemon founder
}

# join_by_ticket NODE: the founder invites, the node joins with the ticket and becomes a member.
join_by_ticket() {
  local ticket
  make_node "$1"
  ticket=$(cli founder invite --name "$1" --endpoint "$(underlay4 "$(number founder)"):4647" 2>>"$WORK/nodes/founder/invite.log")
  cli "$1" join "$ticket" --name "$1" --no-start >"$WORK/nodes/$1/join.log"
  start_daemon "$1"
}

# overlay NODE 4|6 → its address inside the network
overlay() {
  local family=:
  if [ "$2" = 4 ]; then family=.; fi
  cli "$1" ip --json | jq -er --arg family "$family" '[.data.addresses[] | select(contains($family))][0]'
}

# meet NODE NODE: both have a confirmed session with each other.
meet() {
  cli "$1" wait --for "peer=$2" --timeout 20 >/dev/null
  cli "$2" wait --for "peer=$1" --timeout 20 >/dev/null
}

# Stops every daemon and forgets the network; the namespaces stay.
forget_network() {
  local pid pids=("${DAEMONS[@]}")
  DAEMONS=()
  kill "${pids[@]}"
  for pid in "${pids[@]}"; do wait_until 10 "the daemons stop" process_ended "$pid"; done
  rm -rf "$WORK/nodes"
}

# wait_until SECONDS WHAT COMMAND…: polls a condition; ends early when a daemon dies.
wait_until() {
  local deadline=$(($(now_ms) + $1 * 1000)) what=$2
  until "${@:3}"; do
    daemons_live
    if [ "$(now_ms)" -gt "$deadline" ]; then
      note "not within $1 s: $what"
      return 1
    fi
    sleep 0.05
  done
}

#!/usr/bin/env bash
# Measures P2Plus with each cipher and with none, beside wireguard-go and the bare network, on this one machine: two network
# namespaces joined by a router, interleaved rounds, medians. Both ends, the router, the sender and the sink share this
# machine's cores: trust the ratios, and run it while the machine does nothing else.
#
#   scripts/bench.sh                 everything, three rounds: about a quarter of an hour
#   scripts/bench.sh --quick         shows that it works: one round of loads too short for figures
#   scripts/bench.sh --rounds N      another number of rounds
#   scripts/bench.sh --only LIST     some of raw,wireguard-go,aes,chacha,null,crowd
#   scripts/bench.sh --json FILE     also writes every figure of every round
#
# Mode `super`: what crosses the wire are super-packets, as between virtual machines of one host. Mode `wire`: every packet is
# its own, as on a network card that cuts and joins nothing; the receiver's GRO is on. Crowd: a hub with a hundred idle members.
# As root it does everything; as a user it builds as the user and calls sudo. It installs the Debian packages that it needs,
# fetches the newest wireguard-go of Debian into target/bench, and removes namespaces and daemons, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run servers bench/contestants bench/measure bench/crowd bench/table; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done
# shellcheck disable=SC2034  # net.sh joins them
NODES=(founder ada)
MODES=(super wire)

usage() {
  sed -n '6,10s/^# *//p' "$0" >&2
  exit 2
}

# shellcheck disable=SC2034  # the measurements use them
be_quick() { ROUNDS=1 SECONDS_TCP=1 SECONDS_MORE=1 PINGS=100 RATE_STEPS=3 SECONDS_RATE=0.3 CROWD=10 CROWD_SETTLE=1 CROWD_SECONDS=5; }

ARGUMENTS=("$@")
ROUNDS=3
ONLY=$(IFS=,; echo "${CONTESTANTS[*]},crowd")
JSON=""
# shellcheck disable=SC2034  # the measurements use them
SECONDS_TCP=5 SECONDS_MORE=4 PINGS=1000 RATE_STEPS=8 SECONDS_RATE=0.6 CROWD=100 CROWD_SETTLE=90 CROWD_SECONDS=60
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) ROUNDS=${2:-}; shift ;;
    --only) ONLY=${2:-}; shift ;;
    --json) JSON=${2:-}; shift; [ -n "$JSON" ] || usage ;;
    --quick) be_quick ;;
    *) usage ;;
  esac
  [ $# -gt 0 ] && shift
done
[[ $ROUNDS =~ ^[1-9][0-9]?$ ]] || usage

wanted() { [[ ,$ONLY, == *,$1,* ]]; }
CHOSEN=()
for name in "${CONTESTANTS[@]}"; do if wanted "$name"; then CHOSEN+=("$name"); fi; done
for name in ${ONLY//,/ }; do [[ " ${CONTESTANTS[*]} crowd " == *" $name "* ]] || usage; done

# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(bench) KEPT=(P2PLUS_BIN P2PLUS_NULL_BIN SMALL_PACKETS WIREGUARD_GO) ENDS=(forget_wireguard_sockets)

# The newest wireguard-go is fetched as well.
build_programs() {
  local folder=$REPOSITORY/target/bench
  mkdir -p "$folder"
  if wanted null && [ -z "${P2PLUS_NULL_BIN:-}" ]; then
    # Built first: the build without the feature then takes its place.
    P2PLUS_NULL_BIN=$folder/p2plus-null-cipher
    cp "$(build_release --features null-cipher)" "$P2PLUS_NULL_BIN"
  fi
  if wanted null && [[ $("$P2PLUS_NULL_BIN" -V) != *+null-cipher ]]; then
    echo "$P2PLUS_NULL_BIN has a cipher" >&2
    return 1
  fi
  P2PLUS_BIN=${P2PLUS_BIN:-$(build_release)}
  SMALL_PACKETS=${SMALL_PACKETS:-$(build_example small_packets)}
  WIREGUARD_GO=${WIREGUARD_GO:-$("$LIBRARY/bench/wireguard_go.sh" "$folder")}
}

build_example() {
  cargo build --release --example "$1" --message-format=json-render-diagnostics |
    jq -r --arg name "$1" 'select(.executable != null and .target.name == $name) | .executable'
}

# set_mode super|wire: what the cables do for their packets, at both ends.
set_mode() {
  local node offload=on join=off
  MODE=$1
  if [ "$MODE" = wire ]; then offload=off join=on; fi
  for node in "${NODES[@]}"; do
    cut_and_join "$node" eth0
    cut_and_join router "to-$node"
  done
}

cut_and_join() {
  in_ns "$1" ethtool -K "$2" tso $offload gso $offload tx-udp-segmentation $offload gro $join >/dev/null
}

run_rounds() {
  local name
  for ((ROUND = 1; ROUND <= ROUNDS; ROUND++)); do
    for mode in "${MODES[@]}"; do
      set_mode "$mode"
      for name in "${CHOSEN[@]}"; do
        doing "round $ROUND of $ROUNDS, $mode: ${TITLES[$name]}"
        printf '%8s s  %s\n' "$(elapsed)" "$STEP"
        measure "$name"
      done
    done
  done
}

report() {
  local mode
  echo
  print_machine
  echo "rounds     $ROUNDS, interleaved; medians; in brackets the ratio to wireguard-go"
  if [ ${#CHOSEN[@]} -gt 0 ]; then
    for mode in "${MODES[@]}"; do print_table "$mode" "${CHOSEN[@]}"; done
  fi
  print_crowd
  if [ -n "$JSON" ]; then write_json "$JSON"; fi
}

begin BENCH bench "${ARGUMENTS[@]}"
RESULTS=$WORK/results
: >"$RESULTS"
doing "two namespaces joined by a router"
net_up
run_rounds
if wanted crowd; then
  doing "an idle hub with $CROWD members"
  MODE=idle ROUND=1
  printf '%8s s  %s\n' "$(elapsed)" "$STEP"
  measure_crowd $CROWD $CROWD_SETTLE $CROWD_SECONDS
fi
report

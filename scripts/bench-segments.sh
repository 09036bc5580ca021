#!/usr/bin/env bash
# Measures frames beside packets: TCP by iperf3 between two nodes through a segment's device (TAP) and through the overlay's (TUN), in
# interleaved rounds of one run on this one machine. Trust the ratio, and run it while the machine does nothing else.
#
#   scripts/bench-segments.sh                 five rounds of five seconds each way
#   scripts/bench-segments.sh --quick         shows that it works: one round, too short for figures
#   scripts/bench-segments.sh --rounds N      another number of rounds
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, and removes namespaces and daemons, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run bench/rounds; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done
# shellcheck disable=SC2034  # net.sh joins them
NODES=(founder ada ben)

read_rounds "$@"
# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(bench)

# join_segment NODE N: the node joins with the segment's tag; its device gets an address.
join_segment() {
  local ticket
  make_node "$1"
  ticket=$(cli founder invite --name "$1" --tag lan --endpoint "$(underlay4 1):4647" 2>/dev/null)
  cli "$1" join "$ticket" --name "$1" --no-start >/dev/null
  start_daemon "$1"
  wait_until 20 "$1 has a device for the segment" ip -n "$(ns "$1")" link show p2t-lab >/dev/null 2>&1
  ip -n "$(ns "$1")" addr add "192.168.99.$2/24" dev p2t-lab
}

begin "SEGMENTS BENCH" seg "$@"
doing "two nodes in a segment"
net_up
start_founder
cli founder segment add lab --tag lan >/dev/null
join_segment ada 1
join_segment ben 2
meet ada ben
in_ns ada iperf3 -s -D --pidfile "$WORK/iperf3.pid" >/dev/null
wait_until 10 "iperf3 listens" in_ns ada bash -c 'ss -tln | grep -q :5201'

TUN=$(overlay ada 4)
for ((round = 1; round <= ROUNDS; round++)); do
  tun=$(tcp_goodput ben "$TUN")
  tap=$(tcp_goodput ben 192.168.99.1)
  echo "$tun" >>"$WORK/tun"
  echo "$tap" >>"$WORK/tap"
  note "round $round: packets (TUN) $tun Mbit/s, frames (TAP) $tap Mbit/s"
done
show_ratio "packets (TUN) in Mbit/s" "$WORK/tun" "frames (TAP)" "$WORK/tap"

#!/usr/bin/env bash
# Measures what a relay passes on beside a direct path: TCP by iperf3 between two nodes that reach each other, and between two that do so
# through a third alone, in interleaved rounds of one run on this one machine. Trust the ratio, and run it while the machine does nothing else.
#   scripts/bench-relay.sh                 five rounds of five seconds each way
#   scripts/bench-relay.sh --quick         shows that it works: one round, too short for figures
#   scripts/bench-relay.sh --rounds N      another number of rounds
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
NODES=(founder ada ben cid dan)

read_rounds "$@"
# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(bench leaks)

# path_kind NODE PEER → direct, relay or none
path_kind() { cli "$1" peers --json | jq -r --arg peer "$2" '.data[] | select(.name == $peer) | .path.kind'; }

is_relayed() {
  cli "$1" ping "$2" -c 1 >/dev/null 2>&1 || true
  [ "$(path_kind "$1" "$2")" = relay ] && [ "$(path_kind "$2" "$1")" = relay ]
}

serve() {
  in_ns "$1" iperf3 -s -D --pidfile "$WORK/iperf3-$1.pid" >/dev/null
  wait_until 10 "iperf3 listens at $1" in_ns "$1" bash -c 'ss -tln | grep -q :5201'
}

begin "RELAY BENCH" relay "$@"
doing "four members; no datagram passes between two of them"
net_up
in_ns router nft -f - <<RULES
table inet apart { chain passed { type filter hook forward priority filter;
  ip saddr $(underlay4 4) ip daddr $(underlay4 5) drop; ip saddr $(underlay4 5) ip daddr $(underlay4 4) drop;
  iifname to-cid oifname to-dan drop; iifname to-dan oifname to-cid drop; }; }
RULES
# shellcheck disable=SC2034  # nodes.sh reads it
NODE_CONFIG=$'[relay]\nmode = "on"'
start_founder
for node in ada ben cid dan; do join_by_ticket "$node"; done
meet ada ben
wait_until 40 "cid and dan reach each other through a member" is_relayed cid dan
note "cid reaches dan by $(cli cid peers --json | jq -r '.data[] | select(.name == "dan") | .path.relay')"
serve ben
serve dan

DIRECT=$(overlay ben 4)
RELAYED=$(overlay dan 4)
for ((round = 1; round <= ROUNDS; round++)); do
  direct=$(tcp_goodput ada "$DIRECT")
  relayed=$(tcp_goodput cid "$RELAYED")
  echo "$direct" >>"$WORK/direct"
  echo "$relayed" >>"$WORK/relayed"
  note "round $round: direct $direct Mbit/s, relayed $relayed Mbit/s"
  is_relayed cid dan
done
show_ratio "direct in Mbit/s" "$WORK/direct" "relayed" "$WORK/relayed"

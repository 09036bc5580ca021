#!/usr/bin/env bash
# Measures what a network's rules cost: TCP by iperf3 between two nodes, in a network where everything is allowed and in one with
# 10,000 rules, in interleaved rounds of one run on this one machine. Trust the ratio, and run it while the machine does nothing else.
#
#   scripts/bench-rules.sh                 five rounds of five seconds each way
#   scripts/bench-rules.sh --quick         shows that it works: one round, too short for figures
#   scripts/bench-rules.sh --rounds N      another number of rounds
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, and removes namespaces and daemons, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run bench/rounds; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done
# shellcheck disable=SC2034  # net.sh joins them, run.sh reads the others
NODES=(founder ada) PACKAGES=(bench)
RULES=10000

read_rounds "$@"

# small → 64-byte datagrams a second that arrive, sent as fast as ada can
small() {
  in_ns ada iperf3 -c "$TARGET" -u -b 0 -l 64 -t "$SECONDS_EACH" -J | jq -r '.end.sum_received | .packets / .seconds * (1 - .lost_percent / 100) | floor'
}

# rule_count NODE → how many rules are in force there
rule_count() { cli "$1" policy show --json | jq '.data | length'; }

has_rules() { [ "$(rule_count "$1")" = "$2" ]; }

# Rules of many servers with ports of their own, none of them for these two but the last.
many_rules() {
  awk -v count=$((RULES - 1)) 'BEGIN {
    for (n = 0; n < count; n++) {
      printf "%s 172.%d.%d.0/24 192.168.%d.%d:%d/tcp\n", n % 10 ? "allow" : "deny ", 16 + n % 16, int(n / 16) % 256, int(n / 256), n % 256, 1 + n % 60000
    }
    print "allow ada founder"
  }'
}

# with_rules NAME COUNT: the rules of $WORK/NAME, once both nodes have them.
with_rules() {
  cli founder policy apply --timeout 55 "$WORK/$1" >>"$WORK/apply.log"
  wait_until 60 "$2 rules at the founder" has_rules founder "$2"
  wait_until 60 "$2 rules at ada" has_rules ada "$2"
}

begin "RULES BENCH" rules "$@"
doing "two nodes"
net_up
start_founder
join_by_ticket ada
meet ada founder
TARGET=$(overlay founder 4)
in_ns founder iperf3 -s -D --pidfile "$WORK/iperf3.pid" >/dev/null
many_rules >"$WORK/many"
echo "allow * *" >"$WORK/open"
for ((round = 1; round <= ROUNDS; round++)); do
  for kind in open many; do
    doing "round $round, $kind"
    count=1
    if [ $kind = many ]; then count=$RULES; fi
    started=$(now_ms)
    with_rules $kind "$count"
    took=$(($(now_ms) - started))
    tcp=$(tcp_goodput ada "$TARGET") udp=$(small)
    echo "$tcp" >>"$WORK/tcp-$kind"
    echo "$udp" >>"$WORK/udp-$kind"
    note "round $round, $count rules (there in $(seconds $took) s): TCP $tcp Mbit/s, 64-byte datagrams $udp/s"
  done
done
show_ratio "TCP in Mbit/s with nothing that is looked at" "$WORK/tcp-open" "with $RULES rules" "$WORK/tcp-many"
show_ratio "64-byte datagrams/s with nothing that is looked at" "$WORK/udp-open" "with $RULES rules" "$WORK/udp-many"

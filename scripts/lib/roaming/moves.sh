# shellcheck shell=bash
# What happens to ben while he works: his NAT forgets him, he is given another address, he takes another interface, his machine sleeps. Needs
# net.sh and nodes.sh.

# The NAT is the router's: it knows ben by any address that he is given, and gives each of his conversations a port at random.
nat_in_front_of_ben() {
  in_ns router nft -f - <<'RULES'
table ip in_front_of_ben {
  chain out { type nat hook postrouting priority srcnat;
    ip saddr { 198.18.3.0/24, 198.18.33.0/24, 198.18.34.0/24 } ip daddr 198.18.0.0/16 masquerade random,fully-random; }
}
RULES
  # Only what the NAT lets through.
  ip -n "$(ns ben)" -6 addr flush dev eth0 scope global
  ip -n "$(ns ben)" -6 route flush default
}

move_nat_reboots() { in_ns router conntrack -F >/dev/null 2>&1; }

move_address() {
  local ben router
  ben=$(ns ben) router=$(ns router)
  ip -n "$router" addr add 198.18.33.1/24 dev to-ben
  ip -n "$ben" -4 addr flush dev eth0
  ip -n "$ben" addr add 198.18.33.2/24 dev eth0
  ip -n "$ben" route add default via 198.18.33.1
}

# A cable is pulled, and another one plugged in.
move_interface() {
  local ben router
  ben=$(ns ben) router=$(ns router)
  ip link add eth1 netns "$ben" type veth peer name to-ben2 netns "$router"
  ip -n "$router" addr add 198.18.34.1/24 dev to-ben2
  ip -n "$router" link set to-ben2 up
  ip -n "$ben" link set eth0 down
  ip -n "$ben" addr add 198.18.34.2/24 dev eth1
  ip -n "$ben" link set eth1 up
  ip -n "$ben" route add default via 198.18.34.1
}

# sleep_machine SECONDS FOR: ben's daemon stands still for so many seconds, after which its clocks say that it was so much longer.
sleep_machine() {
  kill -STOP "${DAEMONS[ben]}"
  sleep "$1"
  write_clocks "$2"
  kill -CONT "${DAEMONS[ben]}"
}

# write_clocks SECONDS: what clocks.c adds, as eight bytes.
write_clocks() {
  local value=$1 text=
  for _ in {1..8}; do
    text+=$(printf '\\x%02x' $((value & 255)))
    value=$((value >> 8))
  done
  # shellcheck disable=SC2059  # the bytes
  printf "$text" | dd of="$WORK/clocks" conv=notrunc status=none
}

# shellcheck shell=bash
# Attacks on who sends everything by an exit: the founder by ada, to a host far away. Needs leaks.sh.
# shellcheck disable=SC2034  # the script uses what is set here

ATTACKS+=(exit_down exit_user_killed)
ATTACK_TITLES+=(
  [exit_down]="the exit's daemon is killed | packets to the internet that left in clear"
  [exit_user_killed]="the daemon of who uses an exit is killed | packets to the internet that left in clear"
)

INTERNET4=198.18.9.2
INTERNET6=2001:db8:9::2

# What of P2Plus stands under [routes] where nothing may leave beside the exit.
LOCKED_DOWN=$'[routes]\nlock_down = true\nlan_access = false'

# start_exit_user CONTESTANT CONFIGURATION: the latter is P2Plus's, at the founder.
start_exit_user() {
  add_namespace internet
  plug internet 9
  if [ "$1" = p2plus ]; then
    start_victim p2plus
    configure founder "$2"
    cli founder advertise --exit --for ada >/dev/null
    cli founder exit-node use ada >/dev/null
  else
    start_wireguard_go_exit
  fi
  comes_from ada
}

# comes_from NODE: what the founder sends to the internet has, when it gets there, this node's addresses.
comes_from() {
  local number
  number=$(number "$1")
  start_capture "from-$1" router to-internet "src host $(underlay4 "$number") or src host 2001:db8:$number::2"
  wait_until 30 "the founder's packets come from $1" arrives_by "from-$1"
  stop_capture "from-$1"
}

arrives_by() {
  in_ns founder ping -q -c 1 -W 1 $INTERNET4 &>/dev/null && in_ns founder ping -q -c 1 -W 1 $INTERNET6 &>/dev/null &&
    [ "$(packets "$1" "icmp[icmptype] == icmp-echo")" != 0 ] && [ "$(packets "$1" "icmp6 and ip6[40] == 128")" != 0 ]
}

# By the manual: wg-quick at both ends; the exit passes on what comes, under its own addresses.
start_wireguard_go_exit() {
  local node home=$WORK/wireguard
  TUNNELS=()
  mkdir -p "$home"
  # It would take the kernel's WireGuard where there is one.
  # shellcheck disable=SC2016  # wg-quick's own variable
  sed 's/^# ~~ function override insertion point ~~$/add_if() { cmd wireguard-go "$INTERFACE"; }/' "$(command -v wg-quick)" >"$home/wg-quick"
  grep -q '^add_if() { cmd wireguard-go' "$home/wg-quick"
  for node in founder ada; do
    (umask 077 && wg genkey >"$home/$node.key")
    wg pubkey <"$home/$node.key" >"$home/$node.pub"
  done
  wg_quick founder 1 "[Peer]
PublicKey = $(cat "$home/ada.pub")
Endpoint = $(underlay4 "$(number ada)"):$WIREGUARD_PORT
AllowedIPs = 0.0.0.0/0, ::/0"
  in_ns ada nft 'add table inet exit; add chain inet exit nat { type nat hook postrouting priority srcnat; }; add rule inet exit nat oifname eth0 masquerade'
  wg_quick ada 2 "ListenPort = $WIREGUARD_PORT
PostUp = sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
[Peer]
PublicKey = $(cat "$home/founder.pub")
AllowedIPs = 10.99.0.1/32, fd00:99::1/128"
  TARGET=10.99.0.2
}

# wg_quick NODE NUMBER REST: its interface has the NUMBER, and the REST of the configuration.
wg_quick() {
  local home=$WORK/wireguard file
  file=$home/$(wireguard_device "$1").conf
  (umask 077 && printf '[Interface]\nPrivateKey = %s\nAddress = 10.99.0.%d/24, fd00:99::%d/64\n%s\n' "$(cat "$home/$1.key")" "$2" "$2" "$3" >"$file")
  in_ns "$1" bash "$home/wg-quick" up "$file" >>"$WORK/wg-quick.log" 2>&1
  # The daemon of the node is all that runs there.
  TUNNELS+=("$(ip netns pids "$(ns "$1")")")
}

attack_exit_down() {
  start_exit_user "$1" "$LOCKED_DOWN"
  kill_daemon "$1" ada
  send_observed $INTERNET4 $INTERNET6
  if [ "$1" = p2plus ]; then
    start_daemon ada
    comes_from ada
  fi
}

attack_exit_user_killed() {
  start_exit_user "$1" "$LOCKED_DOWN"
  kill_daemon "$1" founder
  send_observed $INTERNET4 $INTERNET6
  if [ "$1" = p2plus ]; then
    start_daemon founder
    comes_from ada
    kill_daemon p2plus founder
    # In the namespace, as a person would on that machine.
    in_ns founder "$P2PLUS_BIN" --state-dir "$WORK/nodes/founder/state" --run-dir "$WORK/nodes/founder/run" -n "$NETWORK" cleanup >"$WORK/cleanup.log"
    comes_from founder
  fi
}

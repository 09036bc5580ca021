# shellcheck shell=bash
# Steps of the demo that are about names and about networks behind the nodes. Needs by_name.sh and what it needs.

step_names() {
  cli founder name add mail founder >/dev/null
  cli founder name add @ mx 10 mail >/dev/null
  cli ben name add ben mx 10 ben >/dev/null
  wait_until 10 "the names reach ben" finds_mail_of_founder
  wait_until 10 "the names reach the founder" knows_mail_of_ben
  mail_host founder demo.internal "$FOUNDER4" "$FOUNDER6"
  mail_host ben ben.demo.internal "$BEN4" "$BEN6"
  send_mail ben box@ben.demo.internal box@demo.internal by-mx
  wait_until 30 "ben's mail reaches the founder" has_mail founder by-mx
  grep -q 'relay=mail\.demo\.internal\[' "$WORK/postfix-ben/log"
  grep -q 'client=ben\.demo\.internal\[' "$WORK/postfix-founder/log"
  note "ben's postfix found demo.internal's mail server by MX, which took ben for ben.demo.internal, forward and reverse;" \
    "the LAN's resolver was asked for $(lan_was_asked 'demo\.internal') names of the network"
  [ "$(lan_was_asked 'demo\.internal')" = 0 ]
}

knows_mail_of_ben() { cli founder dns query ben mx --json | jq -e '.data.answers | length > 0' >/dev/null; }

finds_mail_of_founder() { in_ns ben getent hosts mail.demo.internal >/dev/null; }

lans_meet() { in_ns lan-ada ping -c 1 -W 1 192.168.99.12 >/dev/null; }

# The node itself has no key that could approve it, and says so by its exit code.
ask_for_bridge() {
  local code=0
  cli "$1" bridge add lan0 lab >/dev/null || code=$?
  [ $code = 0 ] || [ $code = 6 ]
}

step_lan() {
  local node host=10
  cli founder segment add lab --tag lan >/dev/null
  for node in ada ben; do
    host=$((host + 1))
    cli founder tag "$node" +lan >/dev/null
    add_namespace "lan-$node"
    ip link add lan0 netns "$(ns "$node")" type veth peer name eth0 netns "$(ns "lan-$node")"
    ip -n "$(ns "$node")" link set lan0 up
    ip -n "$(ns "lan-$node")" addr add "192.168.99.$host/24" dev eth0
    ip -n "$(ns "lan-$node")" link set eth0 up
    ask_for_bridge "$node"
    cli founder bridge approve lab "$node" >/dev/null
  done
  wait_until 20 "a host at ada's LAN reaches one at ben's" lans_meet
  in_ns lan-ben ping -c 3 -i 0.2 -W 2 192.168.99.11 >"$WORK/ping"
  note "two hosts that know nothing of P2Plus are on one Ethernet: $(sed -n 's/^rtt [^=]*= *//p' "$WORK/ping")"
}

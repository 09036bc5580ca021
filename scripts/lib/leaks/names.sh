# shellcheck shell=bash
# Attacks by the LAN's resolver, which answers every question, and wrongly. The founder asks as its programs do: by /etc/resolv.conf. Needs
# leaks.sh, leaks/exit.sh and by_name.sh.
# shellcheck disable=SC2034  # the script uses what is set here

ATTACKS+=(names names_killed other_names other_names_far other_names_near)
ATTACK_TITLES+=(
  [names]="the LAN's resolver lies, and the network's names are asked for (wireguard-go has none: its host asks the LAN) | questions that left in clear, or false answers if these are more"
  [names_killed]="the same with the asking host's daemon killed; not promised | the same"
  [other_names]="an exit is used, and the LAN's resolver is asked for other names (\`lan_access = false\`) | questions that left in clear"
  [other_names_far]="an exit is used, and a resolver behind it is asked for other names (\`DNS =\` of wg-quick) | questions that left in clear"
  [other_names_near]="an exit is used, and the resolver of a private LAN, left in reach by the default \`lan_access\`, is asked; not promised | questions that left in clear"
)
UNPROMISED+=([names_killed]=yes [other_names_near]=yes)

# 10,000 questions take 3 s.
ASKING_SECONDS=60

# ask ZONE [NAME ADDRESS]: see ask_names.pl. Sets IN_CLEAR, how many questions passed by the founder's uplink, ANSWERED and WRONG.
ask() {
  observe "port 53"
  in_ns founder "$LIBRARY/ask_names.pl" "$COUNT" $ASKING_SECONDS "$@" >"$WORK/answers"
  observed_all
  IN_CLEAR=$(questions_for "$1")
  stop_capture leak
  read -r ANSWERED WRONG <"$WORK/answers"
}

# questions_for ZONE → how many the observer saw. One that is sent again has its port and its number again.
questions_for() {
  tcpdump -r "$WORK/leak.pcap" -n "dst port 53" 2>/dev/null | { grep -F ".$1." || true; } | cut -d ' ' -f 3,6 | sort -u | wc -l
}

attack_names() {
  start_victim_beside_a_liar "$1"
  ask_for_members
}

attack_names_killed() {
  start_victim_beside_a_liar "$1"
  kill_daemon "$1" founder
  ask_for_members
}

start_victim_beside_a_liar() {
  lan_resolver
  start_victim "$1"
  if [ "$1" = p2plus ]; then ask_the_daemon; fi
}

ask_for_members() {
  ask demo.internal ada "$TARGET"
  note "$IN_CLEAR questions left in clear, $WRONG answers were false"
  RESULT=$((WRONG > IN_CLEAR ? WRONG : IN_CLEAR))
}

# The founder's host asks its daemon first, and the LAN's resolver after it.
ask_the_daemon() {
  configure founder $'[dns]\nbackend = "file"'
  wait_until 10 "the founder's host asks its daemon" finds_ada
}

finds_ada() { in_ns founder getent ahostsv4 ada.demo.internal | grep -q "^$TARGET "; }

# ask_by_exit CONTESTANT CONFIGURATION: for names that are not the network's. All are answered, or nothing was shown.
ask_by_exit() {
  start_exit_user "$1" "$2"
  far_resolver
  if [ "$1" = p2plus ]; then ask_the_daemon; fi
  ask example.com
  [ "$ANSWERED" = "$COUNT" ]
  RESULT=$IN_CLEAR
}

# A resolver in the internet.
far_resolver() {
  serve internet far-resolver dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file="$WORK/far-resolver.pid" \
    --user=root --listen-address="$INTERNET4" --bind-interfaces --address=/example.com/198.51.100.1
  wait_for_port internet 53 "$INTERNET4"
}

# It is in reach of the exit too, as one with a public address would be.
attack_other_names() {
  lan_resolver
  ask_by_exit "$1" "$LOCKED_DOWN"
}

# What wg-quick's `DNS =` writes, by resolvconf, when it brings the interface up.
attack_other_names_far() {
  lan_resolver
  printf 'nameserver %s\noptions timeout:2 attempts:1\n' "$INTERNET4" >"/etc/netns/$(ns founder)/resolv.conf"
  ask_by_exit "$1" "$LOCKED_DOWN"
}

# The LAN is a private network, as most are; the router's other address is beyond the exit.
attack_other_names_near() {
  ip -n "$(ns router)" addr add 192.168.50.1/24 dev to-founder
  ip -n "$(ns founder)" addr add 192.168.50.2/24 dev eth0
  lan_resolver
  printf 'nameserver 192.168.50.1\noptions timeout:2 attempts:1\n' >"/etc/netns/$(ns founder)/resolv.conf"
  ask_by_exit "$1" $'[routes]\nlock_down = true'
}

#!/usr/bin/env bash
# Shows that real programs find the members of a network by name alone: getaddrinfo, two mail servers that send by MX and take mail only from
# confirmed names, and a chat client that finds its server by SRV; beside a LAN whose resolver lies about every name.
#
#   scripts/names.sh
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, starts no system service, and removes what it made, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run servers by_name; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done
[ $# = 0 ] || { sed -n '5s/^# *//p' "$0" >&2; exit 2; }

# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(names) ENDS=(forget_resolv_conf)
# Ports that nobody would guess: without the SRV records there is no way to them. The client asks for both kinds, and takes one.
CHAT_PORT=5333
CHAT_TLS_PORT=5334

step_network() {
  # shellcheck disable=SC2034  # nodes.sh writes it
  NODE_CONFIG=$'[dns]\nbackend = "file"'
  lan_resolver
  start_founder
  join_by_ticket ada
  join_by_ticket ben
  meet ada ben
  ADA4=$(overlay ada 4) ADA6=$(overlay ada 6) BEN4=$(overlay ben 4) BEN6=$(overlay ben 6)
  cli founder name add mail ada >/dev/null
  cli founder name add @ mx 10 mail >/dev/null
  cli founder name add _xmpp-client._tcp srv 0 0 $CHAT_PORT ada >/dev/null
  cli founder name add _xmpps-client._tcp srv 0 0 $CHAT_TLS_PORT ada >/dev/null
  cli ben name add ben mx 10 ben >/dev/null
  wait_until 10 "the names reach ben" knows_mail ben
  wait_until 10 "the names reach ada" knows_mail ada
  note "$(in_ns ben dig +short demo.internal MX) is the mail server of demo.internal, $(cli ben dns status | sed -n 's/^ *host *//p')"
}

knows_mail() { [ -n "$(in_ns "$1" dig +short +time=2 +tries=1 ben.demo.internal MX)" ] && [ -n "$(in_ns "$1" dig +short _xmpps-client._tcp.demo.internal SRV)" ]; }

step_getaddrinfo() {
  local answer
  answer=$(in_ns ben getent ahosts ada.demo.internal)
  grep -q "^$ADA4 " <<<"$answer" && grep -q "^$ADA6 " <<<"$answer"
  in_ns ben getent hosts "$ADA4" | grep -q 'ada\.demo\.internal'
  if in_ns ben getent ahosts nobody.demo.internal >/dev/null; then note "nobody.demo.internal was found"; return 1; fi
  in_ns ben getent ahostsv4 example.com | grep -q "^$LIE "
  note "getaddrinfo: ada.demo.internal is $ADA4 and $ADA6, nobody.demo.internal is nobody, and example.com is for the LAN to say"
}

step_mail() {
  mail_host ada demo.internal "$ADA4" "$ADA6"
  mail_host ben ben.demo.internal "$BEN4" "$BEN6"
  send_mail ben box@ben.demo.internal box@demo.internal to-ada
  wait_until 30 "ben's mail reaches ada" has_mail ada to-ada
  send_mail ada box@demo.internal box@ben.demo.internal to-ben
  wait_until 30 "ada's mail reaches ben" has_mail ben to-ben
  grep -q 'client=ben\.demo\.internal\[' "$WORK/postfix-ada/log"
  grep -q 'client=ada\.demo\.internal\[' "$WORK/postfix-ben/log"
  grep -q 'relay=mail\.demo\.internal\[' "$WORK/postfix-ben/log"
  note "postfix to postfix by MX, both ways; each took the other for who its address says, forward and reverse"
}

step_chat() {
  chat_host ada $CHAT_PORT $CHAT_TLS_PORT "$ADA4"
  xmpp ben --username ben@demo.internal --listen >"$WORK/heard" 2>"$WORK/listener.log" &
  wait_until 15 "ben is logged in" grep -q 'Authenticated as ben@demo.internal' "$WORK/prosody/log"
  echo "found by SRV" | xmpp founder --username ada@demo.internal ben@demo.internal
  wait_until 15 "the line reaches ben" grep -qs 'found by SRV' "$WORK/heard"
  note "two clients found prosody by the SRV records of demo.internal, at a port that is no other service's, and talked"
}

step_lan() {
  local asked reverse
  asked=$(lan_was_asked 'demo\.internal')
  reverse=$(lan_was_asked "$(awk -F. '{ print $4 "\\." $3 "\\." $2 "\\." $1 }' <<<"$ADA4")\\.in-addr\\.arpa")
  note "the LAN's resolver was asked for example.com $(lan_was_asked 'example\.com') times, for names of the network $asked times, for their addresses $reverse times"
  [ "$(lan_was_asked 'example\.com')" -ge 1 ]
  [ "$asked" = 0 ]
  [ "$reverse" = 0 ]
}

step_end() {
  local killed
  stop_daemon ben
  [ "$(in_ns ben cat /etc/resolv.conf)" = $'nameserver 198.18.3.1\noptions timeout:2 attempts:1' ]
  note "ben's daemon stopped, and its /etc/resolv.conf is what it was"
  killed=${DAEMONS[ada]}
  unset 'DAEMONS[ada]'
  kill -KILL "$killed"
  wait_until 10 "the daemon of ada ends" process_ended "$killed"
  in_ns ada grep -q 'p2plus' /etc/resolv.conf
  # In the namespace, as a person would on that machine.
  ip netns exec "$(ns ada)" "$P2PLUS_BIN" --state-dir "$WORK/nodes/ada/state" --run-dir "$WORK/nodes/ada/run" -n demo cleanup >"$WORK/cleanup.log"
  if in_ns ada grep -q p2plus /etc/resolv.conf; then return 1; fi
  note "ada's was killed: $(grep resolv.conf "$WORK/cleanup.log")"
}

begin NAMES names
doing "three namespaces joined by a router"
net_up
step step_network "a founder, ada and ben, with names; the LAN's resolver claims every name"
step step_getaddrinfo "getaddrinfo through /etc/resolv.conf"
step step_mail "mail: ben's postfix to ada's by MX, and back"
step step_chat "chat: prosody at ada, found by SRV"
step step_lan "what the LAN's resolver heard"
step step_end "the end of a daemon, and the cleanup after a killed one"

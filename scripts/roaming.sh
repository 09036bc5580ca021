#!/usr/bin/env bash
# Shows that programs keep their connections while a member roams: ben has a shell at ada, her mailbox (IMAP IDLE) and a download open when his NAT
# forgets him, when he is given another address, when he takes another interface, and when his machine sleeps for an hour.
#
#   scripts/roaming.sh
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before.
# It installs the Debian packages that it needs, starts no system service, and removes what it made, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run servers apps/place apps/shell roaming/moves roaming/programs; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done

# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(roaming)
# From the moment of a change to the first answer.
LIMIT=2000

step_network() {
  local node
  nat_in_front_of_ben
  gcc -shared -fPIC -O2 -o "$WORK/clocks.so" "$LIBRARY/roaming/clocks.c"
  head -c 8 /dev/zero >"$WORK/clocks"
  start_founder
  join_by_ticket ada
  export LD_PRELOAD=$WORK/clocks.so CLOCKS=$WORK/clocks
  join_by_ticket ben
  unset LD_PRELOAD CLOCKS
  for node in ada ben; do make_place $node; done
  meet ada ben
  # shellcheck disable=SC2034  # the programs use them
  ADA4=$(overlay ada 4) ADA6=$(overlay ada 6)
  start_programs
  note "$("$P2PLUS_BIN" version | head -n 1); ben behind a NAT, with a shell, a mailbox and a download at ada"
}

# change WHAT COMMAND…: does it, and looks at what ben has open.
change() {
  local moment answered typed
  "${@:2}"
  moment=$(now_ms)
  typed=$(say_in_shell "after $1")
  wait_until 20 "a ping is answered" has_answer_after "$moment"
  answered=$(answered_after "$moment")
  deliver
  wait_until 20 "the mailbox tells of mail" is_told_of_mail
  kill -0 "$DOWNLOAD" || { note "the download ended: $(cat "$WORK/curl.log")"; return 1; }
  note "the first ping was answered after $answered ms, a line typed in the shell after $typed ms; the mailbox told of letter $MAIL"
  [ "$answered" -le $LIMIT ] || { note "that is more than $LIMIT ms"; return 1; }
}

step_nat() { change "the NAT's reboot" move_nat_reboots; }
step_address() { change "another address" move_address; }
step_interface() { change "another interface" move_interface; }
step_sleep() {
  change "sleep" sleep_machine 3 3600
  grep -q "the machine slept" "$WORK/nodes/ben/daemon.log" || { note "ben's daemon did not notice"; return 1; }
}

step_download() {
  local said
  wait "$DOWNLOAD"
  said=$(cat "$WORK/curl.log")
  [ "$said" = "1 $(stat -c %s "$WORK/web/large") 200" ] || { note "curl said \`$said\`"; return 1; }
  cmp "$WORK/web/large" "$WORK/got"
  grep -q closed "$WORK/idle.log" && { note "the mailbox was closed"; return 1; }
  note "one connection, $(stat -c %s "$WORK/got") bytes, no difference; the shell and the mailbox are still open"
}

begin ROAMING roam "$@"
doing "three namespaces joined by a router"
net_up
step step_network "a founder, ada, and ben behind a NAT, who works at ada"
step step_nat "ben's NAT forgets everything"
step step_address "ben is given another address"
step step_interface "ben pulls his cable and plugs in another"
step step_sleep "ben's machine sleeps: stopped for 3 s, and an hour by its clocks"
step step_download "the download goes on to its end"

# shellcheck shell=bash
# What ben has open while he moves: a shell at ada, her mailbox, a download, and a ping every 50 ms. Needs nodes.sh, servers.sh and apps/shell.sh.

MAIL=

start_programs() {
  mkdir -p "$WORK/postfix-ada/mail" "$WORK/web"
  chown mail:mail "$WORK/postfix-ada/mail"
  head -c 20M /dev/urandom >"$WORK/web/large"
  start_dovecot ada "$ADA4" "$ADA6"
  start_web ada "$WORK/web" "$ADA4" "$ADA6" 198.18.2.2:8080
  start_ssh ada "$ADA4" "$ADA6"
  serve ben idle /usr/bin/python3 -u "$LIBRARY/roaming/idle.py" "$ADA4"
  serve ben ping ping -n -D -i 0.05 "$ADA4"
  serve ben curl curl --silent --show-error --limit-rate 1M --output "$WORK/got" \
    --write-out '%{num_connects} %{size_download} %{http_code}\n' "http://$ADA4/large"
  # shellcheck disable=SC2034  # waited for at the end
  DOWNLOAD=$!
  coproc SHELL_AT_ADA { exec ip netns exec "$(ns ben)" ssh -F "$WORK/ssh/client" -o HostName="$ADA4" -o HostKeyAlias=ada.demo.internal ada cat 2>"$WORK/ssh.log"; }
  # shellcheck disable=SC2034,SC2154  # kept, because bash forgets them when the coprocess ends
  exec {TO_SHELL}>&"${SHELL_AT_ADA[1]}" {FROM_SHELL}<&"${SHELL_AT_ADA[0]}"
  say_in_shell "before anything" >/dev/null
  wait_until 10 "the mailbox is open" grep -q idling "$WORK/idle.log"
}

# say_in_shell TEXT → the milliseconds until ada's shell said it again, in the connection that there is
say_in_shell() {
  local began line
  began=$(now_ms)
  echo "$1" >&"$TO_SHELL"
  if ! read -r -t 30 -u "$FROM_SHELL" line || [ "$line" != "$1" ]; then
    note "the shell does not answer: ${line:-nothing}; $(tail -n 1 "$WORK/ssh.log")"
    return 1
  fi
  echo $(($(now_ms) - began))
}

# A letter into ada's mailbox, of which the open connection is to tell.
deliver() {
  local box=$WORK/postfix-ada/mail/box
  MAIL=$((MAIL + 1))
  printf 'Subject: letter %s\n\ntext\n' "$MAIL" >"$box/tmp/$MAIL.letter"
  chown mail:mail "$box/tmp/$MAIL.letter"
  mv "$box/tmp/$MAIL.letter" "$box/new/$MAIL.letter"
}

is_told_of_mail() { grep -q "^\* $MAIL EXISTS" "$WORK/idle.log"; }

# answered_after MILLISECONDS-OF-A-MOMENT → how long after it the first ping was answered that was sent behind it
answered_after() {
  awk -v moment="$1" '/bytes from/ {
    at = substr($1, 2) * 1000
    if (!match($0, /time=[0-9.]+/)) next
    sent = at - substr($0, RSTART + 5, RLENGTH - 5)
    if (sent >= moment) { printf "%d\n", at - moment; exit }
  }' "$WORK/ping.log"
}

has_answer_after() { [ -n "$(answered_after "$1")" ]; }

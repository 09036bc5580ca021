# shellcheck shell=bash
# The steps of the demo, in the order in which they are shown. Each fails by a failing command; `note` prints what it found.
# ada serves the web, mail and chat; ben uses them; the founder admitted both.

WEB_MB=100
# Where the web server of ada also answers outside the tunnel.
CLEAR_PORT=4999

step_founder() {
  start_founder
  FOUNDER4=$(overlay founder 4)
  FOUNDER6=$(overlay founder 6)
  note "founder has $FOUNDER4 and $FOUNDER6"
}

step_join() {
  join_by_ticket ada
  join_by_ticket ben
  meet ada founder
  meet ben founder
  meet ada ben
  ADA4=$(overlay ada 4)
  ADA6=$(overlay ada 6)
  BEN4=$(overlay ben 4)
  BEN6=$(overlay ben 6)
  note "ada has $ADA4 and $ADA6"
  note "ben has $BEN4 and $BEN6"
}

# fetch URL FILE: from ben, over the tunnel; gives up when nothing comes for 5 s.
fetch() {
  in_ns ben curl --silent --show-error --fail --noproxy '*' --connect-timeout 5 --speed-limit 1 --speed-time 5 --max-time 120 \
    --output "$2" "$1"
}

step_web() {
  local sum address started took
  mkdir -p "$WORK/web"
  head -c "${WEB_MB}M" /dev/urandom >"$WORK/web/large"
  printf '%s\n' "$MARKER" >"$WORK/web/marker"
  sum=$(sha256sum <"$WORK/web/large")
  start_web ada "$WORK/web" "$ADA4" "$ADA6" "$(underlay4 "$(number ada)"):$CLEAR_PORT"
  for address in "$ADA4" "[$ADA6]"; do
    started=$(now_ms)
    fetch "http://$address/large" "$WORK/fetched"
    took=$(($(now_ms) - started))
    [ "$(sha256sum <"$WORK/fetched")" = "$sum" ] || { note "http://$address: the sha256 differs"; return 1; }
    note "$WEB_MB MB from nginx at $address in $(seconds $took) s, sha256 equal"
  done
}

mail_curl() { in_ns ben curl --silent --show-error --fail --noproxy '*' --connect-timeout 5 --max-time 30 "$@"; }

step_mail() {
  local sum received
  head -c 300k /dev/urandom >"$WORK/attachment.bin"
  sum=$(sha256sum <"$WORK/attachment.bin")
  start_mail ada "$ADA4" "$ADA6"
  mail_curl "smtp://[$ADA6]:25/ben.demo.internal" --mail-from ben@demo.internal --mail-rcpt box@demo.internal \
    -H 'From: ben@demo.internal' -H 'To: box@demo.internal' -H "Subject: $MARKER" \
    -F '=see the attachment;type=text/plain' -F "file=@$WORK/attachment.bin;type=application/octet-stream;encoder=base64"
  wait_until 15 "postfix delivers the mail" mail_arrived
  received=$(mail_curl --user box:demo "imap://$ADA4:143/INBOX;MAILINDEX=1;SECTION=2" | base64 -di | sha256sum)
  [ "$received" = "$sum" ] || { note "the attachment came back changed"; return 1; }
  mail_curl --user box:demo "imap://$ADA4:143/INBOX;MAILINDEX=1;SECTION=HEADER" | grep "^Subject: $MARKER" >/dev/null
  note "300 kB attachment sent to postfix by IPv6, read back from dovecot by IPv4, sha256 equal"
}

mail_arrived() { [ -n "$(find "$WORK/postfix-ada/mail/box/new" "$WORK/postfix-ada/mail/box/cur" -type f 2>/dev/null)" ]; }

step_chat() {
  start_chat ada "$ADA4" "$ADA6"
  ip netns exec "$(ns founder)" timeout --foreground 20 "$LIBRARY/irc.sh" hear "$ADA4" founder >"$WORK/heard" 2>&1 &
  wait_until 10 "the founder joins #demo" grep -qs '^joined' "$WORK/heard"
  in_ns ben timeout --foreground 20 "$LIBRARY/irc.sh" say "$ADA6" ben "hello from ben $MARKER"
  wait_until 10 "the line arrives" grep -qs "^hello from ben $MARKER\$" "$WORK/heard"
  note "ben's line went through ngircd at ada and reached the founder"
}

step_secrecy() {
  local tunnel control
  fetch "http://$ADA4/marker" "$WORK/fetched"
  grep -q "$MARKER" "$WORK/fetched"
  fetch "http://$(underlay4 "$(number ada)"):$CLEAR_PORT/marker" "$WORK/fetched"
  wait_until 5 "the router's capture holds the control" control_captured
  stop_capture router
  control=$(hits router "$MARKER" tcp port $CLEAR_PORT)
  tunnel=$(hits router "$MARKER" not tcp port $CLEAR_PORT)
  note "$(packets router) packets captured on the router during mail, chat and web, 0 dropped by the capture;" \
    "$(udp_bytes router udp port 4647) bytes in the tunnel's datagrams"
  note "the marker in clear on the underlay: $control hits; the same marker through the tunnel: $tunnel hits"
  [ "$control" -ge 1 ]
  [ "$tunnel" = 0 ]
  # Nothing found in nothing would prove nothing: an attachment of 300 kB passed by twice.
  [ "$(udp_bytes router udp port 4647)" -ge 600000 ]
}

control_captured() { [ "$(hits router "$MARKER" tcp port $CLEAR_PORT)" -ge 1 ]; }

step_without_founder() {
  stop_daemon founder
  fetch "http://$ADA4/large" "$WORK/fetched"
  [ "$(sha256sum <"$WORK/fetched")" = "$(sha256sum <"$WORK/web/large")" ]
  note "$WEB_MB MB from ada to ben with the founder stopped, sha256 equal"
  start_daemon founder
  meet ben founder
  meet ada founder
  note "the founder is back"
}

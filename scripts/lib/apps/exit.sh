# shellcheck shell=bash
# An exit: a web server on the internet, which writes down who came, and a browser at ben. Needs place.sh and by_name.sh: the LAN's
# resolver says of every name that it is at $LIE, and here somebody is there.

INTERNET6=2001:db8:9::2

step_internet() {
  add_namespace internet
  make_place internet
  plug internet 9
  ip -n "$(ns internet)" addr add "$LIE/32" dev lo
  ip -n "$(ns router)" route add "$LIE/32" via 198.18.9.2
  start_internet
  came_from 198.18.3.2 curl_at_ben http://www.example.com/who
  came_from 2001:db8:3::2 curl_at_ben "http://[$INTERNET6]/who"
  note "without an exit the server sees ben: $(last_clients 2)"
}

start_internet() {
  local home=$WORK/internet
  mkdir -p "$home/root"
  head -c 8M /dev/urandom >"$home/root/large"
  cat >"$home/root/index.html" <<'HTML'
<!DOCTYPE html>
<html><head><title>The internet</title><style>body { font: 28px sans-serif; margin: 2em }</style></head>
<body><h1>The internet sees</h1><p id="client">nobody yet</p>
<script>fetch('/who').then(answer => answer.text()).then(text => { document.getElementById('client').textContent = text.trim() })</script>
</body></html>
HTML
  cat >"$home/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $home/pid;
error_log stderr;
events {}
http {
  types { text/html html; }
  default_type text/plain;
  log_format who '\$remote_addr \$request_uri \$status \$body_bytes_sent "\$http_user_agent"';
  access_log $home/access.log who;
  client_body_temp_path $home/body;
  proxy_temp_path $home/proxy;
  fastcgi_temp_path $home/fastcgi;
  scgi_temp_path $home/scgi;
  uwsgi_temp_path $home/uwsgi;
  server {
    listen 80;
    listen [::]:80;
    root $home/root;
    location = /who { return 200 "\$remote_addr\n"; }
  }
}
CONF
  serve_at internet nginx-internet nginx -c "$home/nginx.conf" -e stderr
  wait_for_port internet 80 0.0.0.0 '[::]'
}

curl_at_ben() { in_ns ben curl -sS --fail --noproxy '*' --connect-timeout 3 --max-time 20 "$@"; }

# last_clients N → who came last, by the server's own log
last_clients() { tail -n "$1" "$WORK/internet/access.log" | awk '{ print $1 }' | paste -sd ' '; }

# came_from ADDRESS COMMAND…: the command prints whom the server sees; its log must agree.
came_from() {
  local seen
  seen=$("${@:2}")
  if [ "$seen" != "$1" ] || [ "$(last_clients 1)" != "$1" ]; then note "the server saw $seen, its log has $(last_clients 1), not $1"; return 1; fi
}

step_exit() {
  local request took same status=0
  # ada has no key that could approve it: it asks, and the founder answers.
  cli ada advertise --exit >"$WORK/advertise" 2>&1 || status=$?
  same "what \`advertise\` ends with" $status 6
  wait_until 10 "the request reaches the founder" has_request
  request=$(cli founder requests --json | jq -er '.data[0].id')
  cli founder approve "$request" >/dev/null
  wait_until 10 "ben knows the exit" knows_exit
  cli ben exit-node use ada >/dev/null
  wait_until 20 "ben goes out by ada" goes_by_ada
  came_from 2001:db8:2::2 curl_at_ben "http://[$INTERNET6]/who"
  note "ben uses the exit ada: the server sees $(last_clients 2)"
  took=$(timed curl_at_ben -o "$WORK/large" http://www.example.com/large)
  same=$(same_file "$WORK/internet/root/large" "$WORK/large")
  note "curl: $same in $took ms; the log: $(tail -n 1 "$WORK/internet/access.log")"
  same "the client in the log" "$(last_clients 1)" 198.18.2.2
  # The host asks whom it asked before: a resolver with a public address, which is reached by the exit although it is on the LAN.
  took=$(grep -c 'query\[A\] www\.example\.com from 198\.18\.2\.2' "$WORK/dnsmasq/log" || true)
  note "the resolver of ben's LAN was asked for www.example.com by the exit $took times"
  [ "$took" -ge 1 ]
}

has_request() { cli founder requests --json | jq -e '.data | length > 0' >/dev/null; }
knows_exit() { cli ben exit-node list --json | jq -e '.data | length > 0' >/dev/null; }
goes_by_ada() { [ "$(curl_at_ben http://www.example.com/who 2>/dev/null)" = 198.18.2.2 ]; }

step_browser() {
  local took picture=$WORK/exit.png kept=", kept where APPLICATIONS_KEEP names a folder" before
  before=$(wc -l <"$WORK/internet/access.log")
  took=$(timed browser --dump-dom http://www.example.com/)
  grep -o '<p id="client">[^<]*</p>' "$WORK/timed" >"$WORK/dom" || { note "the page has no client"; return 1; }
  same "the page after its script" "$(cat "$WORK/dom")" '<p id="client">198.18.2.2</p>'
  note "chromium ran the page's script in $took ms: $(cat "$WORK/dom")"
  browser --window-size=900,400 --screenshot="$picture" http://www.example.com/ >"$WORK/chromium.log" 2>&1
  same "how the picture begins" "$(head -c 8 "$picture" | od -An -tx1 | tr -d ' \n')" 89504e470d0a1a0a
  if [ -n "${APPLICATIONS_KEEP:-}" ]; then
    mkdir -p "$APPLICATIONS_KEEP"
    cp "$picture" "$APPLICATIONS_KEEP/exit.png"
    picture=$APPLICATIONS_KEEP/exit.png kept=
  fi
  note "a picture of it: $picture, $(stat -c %s "$picture") bytes$kept"
  tail -n +$((before + 1)) "$WORK/internet/access.log" | grep Chrome >"$WORK/chromium-log"
  same "Chrome's address in the log" "$(awk '{ print $1 }' "$WORK/chromium-log" | sort -u)" 198.18.2.2
  note "the server's log has $(wc -l <"$WORK/chromium-log") requests of Chrome, all from 198.18.2.2, which is ada"
  with chromium nginx-light
}

# browser ARGUMENT…: without a sandbox, because root runs it; nothing of it stays, and it asks nobody for updates.
browser() {
  local home=$WORK/chromium
  mkdir -p "$home"
  in_ns ben env -i PATH="$PATH" HOME="$home" TMPDIR="$home" LANG=C timeout --kill-after=5 60 chromium --headless --no-sandbox --disable-gpu \
    --user-data-dir="$home/data" --no-first-run --disable-background-networking --disable-component-update --disable-sync \
    --disable-default-apps --disable-features=OptimizationHints,MediaRouter --hide-scrollbars --virtual-time-budget=5000 "$@"
}

step_exit_gone() {
  local before after
  before=$(wc -l <"$WORK/internet/access.log")
  stop_daemon ada
  if curl_at_ben http://www.example.com/who >"$WORK/curl" 2>&1; then note "the server saw $(cat "$WORK/curl")"; return 1; fi
  after=$(wc -l <"$WORK/internet/access.log")
  same "the length of the server's log" "$after" "$before"
  note "the exit is stopped: $(cat "$WORK/curl"), and nothing came to the server"
  cli ben exit-node off >/dev/null
  came_from 198.18.3.2 curl_at_ben http://www.example.com/who
  note "exit-node off: the server sees $(last_clients 1) again, which is ben"
}

# shellcheck shell=bash
# Servers of the members that are found by their names alone, and the LAN's resolver, which lies. Needs net.sh, nodes.sh and servers.sh.

# What the LAN's resolver says to every question; nobody is there.
LIE=203.0.113.66

# lan_resolver: a real dnsmasq at the router that claims to know every name, and writes down what it is asked.
lan_resolver() {
  local home=$WORK/dnsmasq node
  mkdir -p "$home"
  # shellcheck disable=SC2046  # one option per node
  serve router dnsmasq dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file="$home/pid" --user=root \
    --log-queries=extra --log-facility="$home/log" --address="/#/$LIE" --bind-interfaces \
    $(for node in "${NODES[@]}"; do printf -- '--interface=to-%s ' "$node"; done)
  for node in "${NODES[@]}"; do
    # What `ip netns exec` shows as /etc/resolv.conf to the programs of that namespace.
    mkdir -p "/etc/netns/$(ns "$node")"
    printf 'nameserver 198.18.%s.1\noptions timeout:2 attempts:1\n' "$(number "$node")" >"/etc/netns/$(ns "$node")/resolv.conf"
  done
  wait_until 10 "dnsmasq listens" lan_answers
}

lan_answers() { in_ns founder dig +short +time=1 +tries=1 @198.18.1.1 example.com >/dev/null; }

forget_resolv_conf() {
  local node
  for node in "${NODES[@]}"; do rm -rf "/etc/netns/$(ns "$node")"; done
}

# lan_was_asked NAME-OR-ZONE → how often the LAN's resolver heard it
lan_was_asked() { grep -cE "query\[[A-Z0-9]+\] ([^ ]*\.)?$1 " "$WORK/dnsmasq/log" || true; }

# mail_host NODE DOMAIN ADDRESS4 ADDRESS6: a postfix that takes mail for box@DOMAIN from hosts whose names are confirmed, and sends by MX.
mail_host() {
  start_postfix "$@" \
    "smtp_bind_address = $3" "smtp_bind_address6 = $4" "smtp_host_lookup = dns" \
    "smtpd_client_restrictions = reject_unknown_client_hostname" \
    "smtpd_helo_required = yes" "smtpd_helo_restrictions = reject_unknown_helo_hostname" \
    "smtpd_sender_restrictions = reject_unknown_sender_domain"
}

# send_mail NODE FROM TO SUBJECT: hands a letter to the node's own postfix.
send_mail() {
  printf 'From: %s\nTo: %s\nSubject: %s\n\nby name\n' "$2" "$3" "$4" |
    in_ns "$1" sendmail -C "$WORK/postfix-$1/etc" -f "$2" "$3"
}

# has_mail NODE SUBJECT
has_mail() { grep -rqs "^Subject: $2\$" "$WORK/postfix-$1/mail/box/new" "$WORK/postfix-$1/mail/box/cur"; }

# chat_host NODE PORT TLS_PORT ADDRESS4: a prosody for demo.internal with the users ada and ben, at ports that only SRV records name.
chat_host() {
  local home=$WORK/prosody user
  mkdir -p "$home/data"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$home/key.pem" -out "$home/cert.pem" -days 2 -subj /CN=demo.internal \
    -addext subjectAltName=DNS:demo.internal 2>"$home/openssl.log"
  chown -R prosody "$home"
  cat >"$home/prosody.cfg.lua" <<CONF
pidfile = "$home/pid"
data_path = "$home/data"
log = { info = "$home/log" }
run_as_root = false
modules_enabled = { "roster", "saslauth", "tls", "disco" }
modules_disabled = { "s2s" }
interfaces = { "$4" }
c2s_ports = { $2 }
c2s_direct_tls_ports = { $3 }
ssl = { key = "$home/key.pem", certificate = "$home/cert.pem" }
VirtualHost "demo.internal"
CONF
  for user in ada ben; do
    in_ns "$1" runuser -u prosody -- prosodyctl --config "$home/prosody.cfg.lua" register "$user" demo.internal secret >>"$home/ctl.log" 2>&1
  done
  serve "$1" prosody runuser -u prosody -- prosody -F --config "$home/prosody.cfg.lua"
  wait_for_port "$1" "$2" "$4"
  wait_for_port "$1" "$3" "$4"
}

# xmpp NODE ARGUMENT…: a client that knows its address ben@demo.internal and nothing else.
xmpp() { in_ns "$1" env HOME="$WORK" timeout --foreground 20 go-sendxmpp --no-tls-verify --password secret "${@:2}"; }

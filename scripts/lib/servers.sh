# shellcheck shell=bash
# Real servers, run from configuration of their own under $WORK inside a node's namespace, never as services of the system.
# They listen on overlay addresses only, but for the one port of the web server that serves as positive control.

# serve NODE NAME COMMAND…: runs a server in the background of a node; its output goes to $WORK/NAME.log.
serve() {
  ip netns exec "$(ns "$1")" "${@:3}" >"$WORK/$2.log" 2>&1 &
}

listens() { in_ns "$1" ss -Hltn "sport = :$3" | grep -F -- "$2" >/dev/null; }

# wait_for_port NODE PORT ADDRESS…
wait_for_port() {
  local address
  for address in "${@:3}"; do wait_until 10 "a server on $address port $2" listens "$1" "$address" "$2"; done
}

# start_web NODE FOLDER ADDRESS4 ADDRESS6 CLEAR: the last is an endpoint outside the tunnel.
start_web() {
  local home=$WORK/nginx
  mkdir -p "$home"
  cat >"$home/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $home/pid;
error_log stderr;
events {}
http {
  access_log $home/access.log;
  client_body_temp_path $home/body;
  proxy_temp_path $home/proxy;
  fastcgi_temp_path $home/fastcgi;
  scgi_temp_path $home/scgi;
  uwsgi_temp_path $home/uwsgi;
  sendfile on;
  server {
    listen $3:80;
    listen [$4]:80;
    listen $5;
    root $2;
  }
}
CONF
  serve "$1" nginx nginx -c "$home/nginx.conf" -e stderr
  wait_for_port "$1" 80 "$3" "$4"
}

# start_mail NODE ADDRESS4 ADDRESS6: SMTP by postfix and IMAP by dovecot on one mailbox, box@demo.internal, password "demo".
start_mail() {
  start_postfix "$1" demo.internal "$2" "$3"
  start_dovecot "$@"
}

# start_postfix NODE DOMAIN ADDRESS4 ADDRESS6 LINE…: takes mail for box@DOMAIN, into $WORK/postfix-NODE/mail/box. The lines are added to main.cf.
start_postfix() {
  local home=$WORK/postfix-$1
  mkdir -p "$home/etc" "$home/spool" "$home/data" "$home/mail"
  chown postfix "$home/data"
  chown mail:mail "$home/mail"
  cat >"$home/etc/main.cf" <<CONF
compatibility_level = 3.6
queue_directory = $home/spool
data_directory = $home/data
maillog_file = $home/log
maillog_file_prefixes = $home
myhostname = $1.demo.internal
mydestination =
mynetworks =
inet_interfaces = $3, $4
smtpd_relay_restrictions = reject_unauth_destination
alias_maps =
virtual_mailbox_domains = $2
virtual_mailbox_maps = static:box/
virtual_mailbox_base = $home/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:$(id -u mail)
virtual_gid_maps = static:$(id -g mail)
CONF
  printf '%s\n' "${@:5}" >>"$home/etc/main.cf"
  cat >"$home/etc/master.cf" <<CONF
smtp      inet  n - n - - smtpd
pickup    unix  n - n 1 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 1 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
smtp      unix  - - n - - smtp
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
proxymap  unix  - - n - - proxymap
postlog   unix-dgram n - n - 1 postlogd
CONF
  in_ns "$1" postfix -c "$home/etc" check
  serve "$1" "postfix-$1" "$(postconf -c "$home/etc" -h daemon_directory)/master" -c "$home/etc" -d
  wait_for_port "$1" 25 "$3" "$4"
}

# start_dovecot NODE ADDRESS4 ADDRESS6: IMAP on the mailbox of the node's postfix.
start_dovecot() {
  local home=$WORK/dovecot
  mkdir -p "$home"
  cat >"$home/dovecot.conf" <<CONF
base_dir = $home/run
state_dir = $home/state
log_path = $home/log
protocols = imap
listen = $2, $3
ssl = no
disable_plaintext_auth = no
default_login_user = dovenull
default_internal_user = dovecot
mail_location = maildir:$WORK/postfix-$1/mail/box
first_valid_uid = 1
passdb {
  driver = static
  args = password=demo
}
userdb {
  driver = static
  args = uid=mail gid=mail home=$WORK/postfix-$1/mail
}
service imap-login {
  chroot =
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 0
  }
}
CONF
  serve "$1" dovecot dovecot -F -c "$home/dovecot.conf"
  wait_for_port "$1" 143 "$2" "$3"
}

# start_chat NODE ADDRESS4 ADDRESS6
start_chat() {
  local home=$WORK/ngircd
  mkdir -p "$home"
  cat >"$home/ngircd.conf" <<CONF
[Global]
  Name = irc.demo.internal
  Info = P2Plus demo
  Listen = $2, $3
  Ports = 6667
  PidFile = $home/pid
  ServerUID = irc
  ServerGID = irc
  MotdPhrase = P2Plus demo
[Options]
  DNS = no
  Ident = no
  PAM = no
  SyslogFacility = local0
CONF
  serve "$1" ngircd ngircd -n -f "$home/ngircd.conf"
  wait_for_port "$1" 6667 "$2" "$3"
}

#!/bin/bash
# A systemd-resolved of its own, in the mount namespace that it makes: resolved.sh FOLDER NAMESERVER
#
# FOLDER is where the Debian package was unpacked; NAMESERVER is what resolved asks by default. Prints "ready", and runs until it is killed.
# With "restart" on its standard input it starts resolved anew, and prints "ready" again.
set -eu
FOLDER=$1 NAMESERVER=$2
if [ -z "${INSIDE:-}" ]; then INSIDE=1 exec unshare --mount --propagation private -- "$0" "$@"; fi

trap 'kill $(jobs -p)' EXIT
mkdir -p /run/dbus /run/systemd
mount -t tmpfs tmpfs /run/dbus
mount -t tmpfs tmpfs /run/systemd
mount -t overlay overlay -o "lowerdir=$FOLDER/usr/bin:/usr/bin" /usr/bin
mkdir -p /run/systemd/resolve
for file in passwd group; do cp "/etc/$file" "/run/systemd/$file"; done
echo 'systemd-resolve:x:989:989::/:/usr/sbin/nologin' >>/run/systemd/passwd
echo 'systemd-resolve:x:989:' >>/run/systemd/group
for file in passwd group; do mount --bind "/run/systemd/$file" "/etc/$file"; done
chown systemd-resolve:systemd-resolve /run/systemd/resolve
mkdir -p /run/systemd/resolved.conf.d
printf '[Resolve]\nDNS=%s\nFallbackDNS=\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n' "$NAMESERVER" >/run/systemd/resolved.conf.d/test.conf
cat >/run/systemd/bus.conf <<'CONF'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
CONF
dbus-daemon --config-file=/run/systemd/bus.conf --nofork --nopidfile &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.02; done

# What resolved answers at its stub is what the programs here ask.
printf 'nameserver 127.0.0.53\n' >/run/systemd/resolv.conf
mount --bind /run/systemd/resolv.conf /etc/resolv.conf

start() {
  "$FOLDER/lib/systemd/systemd-resolved" &
  RESOLVED=$!
  until resolvectl dns >/dev/null 2>&1; do sleep 0.05; done
  echo ready
}
start
while read -r order; do
  if [ "$order" = restart ]; then
    kill "$RESOLVED"
    wait "$RESOLVED" || true
    start
  fi
done

#!/usr/bin/env bash
# Installs the Debian packages of the named sets, as root: packages.sh build|test|demo|bench|leaks|ci…
# Only what is missing, nothing is removed, and no service is started: not now and not at the next boot.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

# program that must be there : package that brings it
set_of() {
  case $1 in
    build) echo /usr/bin/cc:gcc /usr/include/stdio.h:libc6-dev /usr/bin/jq:jq ;;
    test)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/bin/ps:procps /usr/bin/ping:iputils-ping /usr/sbin/ethtool:ethtool \
        /usr/bin/tcpdump:tcpdump /usr/bin/curl:curl /usr/bin/systemd-analyze:systemd
      ;;
    bench)
      echo /usr/sbin/ip:iproute2 /usr/sbin/sysctl:procps /usr/bin/ping:iputils-ping /usr/sbin/ethtool:ethtool \
        /usr/bin/iperf3:iperf3 /usr/bin/wg:wireguard-tools /usr/bin/wireguard-go:wireguard-go
      ;;
    leaks)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/bin/ping:iputils-ping /usr/bin/tcpdump:tcpdump \
        /usr/bin/perl:perl /usr/bin/wg:wireguard-tools /usr/bin/wireguard-go:wireguard-go
      ;;
    ci) echo /usr/bin/shellcheck:shellcheck ;;
    demo)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/bin/tcpdump:tcpdump \
        /usr/bin/curl:curl /usr/bin/perl:perl /usr/sbin/nginx:nginx-light /usr/sbin/postfix:postfix \
        /usr/lib/dovecot/imap:dovecot-imapd /usr/sbin/ngircd:ngircd
      ;;
    *) echo "packages.sh: no set \`$1\`" >&2; exit 2 ;;
  esac
}

missing_packages() {
  local sets needed
  sets=$(for name in "$@"; do set_of "$name"; done)
  for needed in $sets; do
    [ -e "${needed%%:*}" ] || echo "${needed##*:}"
  done | sort -u
}

# What starts our servers at boot.
enabled_servers() {
  find /etc/systemd/system -type l 2>/dev/null | grep -E '/(nginx|postfix[^/]*|dovecot|ngircd)\.(service|socket)$' | sort
}

# Debian's own switch: invoke-rc.d and deb-systemd-invoke ask this program before they start anything.
POLICY=/usr/sbin/policy-rc.d

forbid_service_starts() {
  if [ -e $POLICY ] && [ ! -e $POLICY.p2plus-saved ]; then mv $POLICY $POLICY.p2plus-saved; fi
  printf '#!/bin/sh\nexit 101\n' >$POLICY
  chmod 755 $POLICY
}

clean_up() {
  rm -f $POLICY
  if [ -e $POLICY.p2plus-saved ]; then mv $POLICY.p2plus-saved $POLICY; fi
  rm -rf "$SCRATCH"
}

install_packages() {
  local server
  enabled_servers >"$SCRATCH/enabled" || true
  if ! { apt-get update && apt-get install -y --no-install-recommends --no-remove "$@"; } >"$SCRATCH/log" 2>&1; then
    tail -n 20 "$SCRATCH/log" >&2
    echo "apt-get could not install $*. Nothing is removed: a mail server already here excludes postfix." >&2
    return 1
  fi
  for server in $(enabled_servers | comm -13 "$SCRATCH/enabled" -); do rm -f "$server"; done
}

[ "$EUID" = 0 ] || { echo "packages.sh runs as root" >&2; exit 1; }
exec {LOCK}>/run/lock/p2plus-packages
flock $LOCK
mapfile -t missing < <(missing_packages "$@")
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing Debian packages: ${missing[*]}"
  SCRATCH=$(mktemp -d)
  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
  forbid_service_starts
  install_packages "${missing[@]}"
fi

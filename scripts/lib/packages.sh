#!/usr/bin/env bash
# Installs the Debian packages of the named sets, as root: packages.sh build|test|demo|bench|leaks|ci|roaming…
# Only what is missing, nothing is removed, and no service is started: not now and not at the next boot.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

# Where packages are unpacked that would change the system if they were installed: what resolves its names, what maps its ports.
UNPACKED=/var/cache/p2plus-unpacked

# program that must be there : package that brings it, with = before it when it is only unpacked
set_of() {
  case $1 in
    build) echo /usr/bin/cc:gcc /usr/include/stdio.h:libc6-dev /usr/bin/jq:jq ;;
    test)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/bin/ps:procps /usr/bin/ping:iputils-ping /usr/sbin/ethtool:ethtool \
        /usr/bin/tcpdump:tcpdump /usr/bin/curl:curl /usr/bin/systemd-analyze:systemd /usr/bin/dig:bind9-dnsutils \
        /usr/bin/host:bind9-host /usr/bin/dbus-daemon:dbus-daemon /usr/bin/nsenter:util-linux /usr/sbin/dnsmasq:dnsmasq-base \
        /usr/bin/busybox:busybox /usr/sbin/iptables-legacy:iptables /usr/bin/tinyproxy:tinyproxy-bin \
        $UNPACKED/systemd-resolved/usr/bin/resolvectl:=systemd-resolved \
        $UNPACKED/resolvconf/sbin/resolvconf:=resolvconf $UNPACKED/openresolv/sbin/resolvconf:=openresolv \
        $UNPACKED/miniupnpd-nftables/usr/sbin/miniupnpd:=miniupnpd-nftables
      ;;
    bench)
      echo /usr/sbin/ip:iproute2 /usr/sbin/sysctl:procps /usr/bin/ping:iputils-ping /usr/sbin/ethtool:ethtool \
        /usr/bin/iperf3:iperf3 /usr/bin/wg:wireguard-tools /usr/bin/wireguard-go:wireguard-go
      ;;
    leaks)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/bin/ping:iputils-ping /usr/bin/tcpdump:tcpdump \
        /usr/bin/perl:perl /usr/bin/wg:wireguard-tools /usr/bin/wireguard-go:wireguard-go /usr/sbin/dnsmasq:dnsmasq-base \
        /usr/bin/dig:bind9-dnsutils
      ;;
    names)
      echo /usr/sbin/ip:iproute2 /usr/bin/dig:bind9-dnsutils /usr/sbin/dnsmasq:dnsmasq-base /usr/sbin/postfix:postfix \
        /usr/bin/prosody:prosody /usr/bin/go-sendxmpp:go-sendxmpp /usr/bin/openssl:openssl
      ;;
    applications)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/bin/ping:iputils-ping /usr/bin/curl:curl \
        /usr/bin/dig:bind9-dnsutils /usr/sbin/dnsmasq:dnsmasq-base /usr/bin/busybox:busybox /usr/bin/dbus-daemon:dbus-daemon \
        /usr/sbin/avahi-daemon:avahi-daemon /usr/bin/avahi-browse:avahi-utils /usr/bin/ippfind:cups-ipp-utils \
        /usr/sbin/smbd:samba /usr/bin/smbclient:smbclient /usr/sbin/sshd:openssh-server /usr/bin/ssh:openssh-client /usr/bin/rsync:rsync \
        /usr/lib/postgresql/15/bin/postgres:postgresql-15 /usr/bin/psql:postgresql-client-common \
        /usr/lib/python3/dist-packages/websockets:python3-websockets /usr/bin/iperf3:iperf3 /usr/bin/wg:wireguard-tools \
        /usr/bin/wireguard-go:wireguard-go /usr/sbin/nginx:nginx-light /usr/bin/chromium:chromium \
        $UNPACKED/libnss-mdns/usr/share/doc/libnss-mdns:=libnss-mdns
      ;;
    ci) echo /usr/bin/shellcheck:shellcheck ;;
    roaming)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/sbin/conntrack:conntrack /usr/bin/ping:iputils-ping \
        /usr/sbin/sshd:openssh-server /usr/bin/ssh:openssh-client /usr/sbin/nginx:nginx-light /usr/lib/dovecot/imap:dovecot-imapd \
        /usr/bin/curl:curl /usr/bin/python3:python3
      ;;
    demo)
      echo /usr/sbin/ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/sysctl:procps /usr/bin/tcpdump:tcpdump \
        /usr/bin/curl:curl /usr/bin/perl:perl /usr/sbin/nginx:nginx-light /usr/sbin/postfix:postfix \
        /usr/sbin/dnsmasq:dnsmasq-base /usr/bin/dig:bind9-dnsutils /usr/bin/ping:iputils-ping /usr/bin/jq:jq \
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

# What starts our servers at boot: by a name of their own, or by the one that D-Bus asks for.
enabled_servers() {
  local web_mail_chat='nginx|postfix[^/]*|dovecot|ngircd|prosody' sites='avahi-daemon|dbus-org\.freedesktop\.Avahi|cups[^/]*|[sn]mbd|samba[^/]*'
  local members='sshd?|rsync|postgresql[^/]*'
  find /etc/systemd/system -type l 2>/dev/null | grep -E "/($web_mail_chat|$sites|$members)\.(service|socket|path)\$" | sort
}

# Debian's own switch: invoke-rc.d and deb-systemd-invoke ask this program before they start anything.
POLICY=/usr/sbin/policy-rc.d

forbid_service_starts() {
  STARTS_FORBIDDEN=yes
  if [ -e $POLICY ] && [ ! -e $POLICY.p2plus-saved ]; then mv $POLICY $POLICY.p2plus-saved; fi
  printf '#!/bin/sh\nexit 101\n' >$POLICY
  chmod 755 $POLICY
}

clean_up() {
  if [ -n "${STARTS_FORBIDDEN:-}" ]; then rm -f $POLICY; fi
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

download_package() { (cd "$SCRATCH" && apt-get -o APT::Sandbox::User=root download "$1" >>log 2>&1); }

unpack_package() {
  if ! download_package "$1" && ! { apt-get update >>"$SCRATCH/log" 2>&1 && download_package "$1"; }; then
    tail -n 5 "$SCRATCH/log" >&2
    return 1
  fi
  mkdir -p "$UNPACKED"
  dpkg -x "$SCRATCH/$1"_*.deb "$SCRATCH/$1"
  rm -rf "${UNPACKED:?}/$1"
  mv "$SCRATCH/$1" "$UNPACKED/$1"
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
  mapfile -t installed < <(printf '%s\n' "${missing[@]}" | grep -v '^=')
  if [ ${#installed[@]} -gt 0 ]; then
    forbid_service_starts
    install_packages "${installed[@]}"
  fi
  for package in "${missing[@]}"; do
    case $package in =*) unpack_package "${package#=}" ;; esac
  done
fi

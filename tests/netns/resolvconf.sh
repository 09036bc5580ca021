#!/bin/bash
# A resolvconf that is installed in the mount namespace that it makes, and nowhere else: resolvconf.sh FOLDER NAMESERVER
#
# FOLDER is where the Debian package, of resolvconf or openresolv, was unpacked; NAMESERVER is what eth0 brought along. Prints "ready", and
# lasts until its standard input ends.
set -eu
FOLDER=$1 NAMESERVER=$2
if [ -z "${INSIDE:-}" ]; then INSIDE=1 exec unshare --mount --propagation private -- "$0" "$@"; fi

mkdir -p /run/resolvconf
mount -t tmpfs tmpfs /run/resolvconf
mkdir -p /run/resolvconf/.etc /run/resolvconf/.work /run/resolvconf/interface
mount -t overlay overlay -o "lowerdir=$FOLDER/etc:/etc,upperdir=/run/resolvconf/.etc,workdir=/run/resolvconf/.work" /etc
mount -t overlay overlay -o "lowerdir=$FOLDER/sbin:/usr/sbin" /usr/sbin
mount -t overlay overlay -o "lowerdir=$FOLDER/lib:/usr/lib" /usr/lib
rm -f /etc/resolv.conf
# Debian's keeps the file in /run, and does nothing until it is told to; openresolv's writes it where it is.
if [ ! -e /etc/resolvconf.conf ]; then
  ln -s ../run/resolvconf/resolv.conf /etc/resolv.conf
  resolvconf --enable-updates
fi
echo "nameserver $NAMESERVER" | resolvconf -a eth0.dhclient
grep -q "$NAMESERVER" /etc/resolv.conf
echo ready
cat >/dev/null

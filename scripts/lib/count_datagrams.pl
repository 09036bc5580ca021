#!/usr/bin/perl
# count_datagrams.pl ADDRESS PORT SECONDS: a service at an IPv4 address. Prints how many datagrams it received within SECONDS.
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time);

my ($address, $port, $seconds) = @ARGV;
socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
setsockopt($socket, SOL_SOCKET, SO_RCVBUF, 4 << 20) or die "buffer: $!";
bind($socket, pack_sockaddr_in($port, inet_aton($address))) or die "bind: $!";
my ($end, $count) = (time + $seconds, 0);
while ((my $left = $end - time) > 0) {
    my $waiting = '';
    vec($waiting, fileno($socket), 1) = 1;
    next unless select($waiting, undef, undef, $left);
    defined recv($socket, my $datagram, 100, 0) and $count++;
}
print "$count\n";

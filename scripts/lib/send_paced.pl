#!/usr/bin/perl
# send_paced.pl RATE SECONDS PORT ADDRESS…: RATE datagrams a second to each IPv4 address for SECONDS, whatever the kernel answers.
# Prints for each second of sending: its end (seconds since 1970), datagrams tried, datagrams refused by the kernel.
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time sleep);

my ($rate, $seconds, $port, @addresses) = @ARGV;
$| = 1;
socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
my @targets = map { pack_sockaddr_in($port, inet_aton($_)) } @addresses;
my $start = time;
my ($round, $tried, $refused, $report) = (0, 0, 0, $start + 1);
while ($round < $rate * $seconds) {
    my $due = $start + $round / $rate;
    my $now = time;
    sleep($due - $now) if $due > $now;
    for my $target (@targets) {
        $tried++;
        defined send($socket, pack("N", $round) . "p2plus" x 10, 0, $target) or $refused++;
    }
    $round++;
    if (time >= $report) {
        printf "%.6f %d %d\n", time, $tried, $refused;
        ($tried, $refused) = (0, 0);
        $report += 1;
    }
}

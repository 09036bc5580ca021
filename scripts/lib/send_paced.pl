#!/usr/bin/perl
# send_paced.pl RATE SECONDS PORT ADDRESS…: RATE datagrams a second to each address for SECONDS, whatever the kernel answers.
# Prints for each second of sending: its end (seconds since 1970), datagrams tried, datagrams refused by the kernel.
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
use Time::HiRes qw(time sleep);

my ($rate, $seconds, $port, @addresses) = @ARGV;
$| = 1;
my @targets = map { target($_) } @addresses;
my $start = time;
my ($round, $tried, $refused, $report) = (0, 0, 0, $start + 1);
while ($round < $rate * $seconds) {
    my $due = $start + $round / $rate;
    my $now = time;
    sleep($due - $now) if $due > $now;
    for my $target (@targets) {
        $tried++;
        defined send($target->[0], pack("N", $round) . "p2plus" x 10, 0, $target->[1]) or $refused++;
    }
    $round++;
    if (time >= $report) {
        printf "%.6f %d %d\n", time, $tried, $refused;
        ($tried, $refused) = (0, 0);
        $report += 1;
    }
}

sub target {
    my ($address) = @_;
    my $family = $address =~ /:/ ? AF_INET6 : AF_INET;
    my $number = inet_pton($family, $address) or die "$address: no address";
    socket(my $socket, $family, SOCK_DGRAM, 0) or die "socket: $!";
    return [$socket, $family == AF_INET ? pack_sockaddr_in($port, $number) : pack_sockaddr_in6($port, $number)];
}

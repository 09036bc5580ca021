#!/usr/bin/perl
# ask_names.pl COUNT SECONDS ZONE [NAME ADDRESS]: asks the C library, as every program does, for IPv4 addresses of COUNT names of ZONE, one
# after the other: NAME, which has ADDRESS, and names that nobody has, by turns. Without NAME all are of the second kind.
# Prints how many were answered, and how many wrongly: nobody has an address, NAME has no other. It fails when SECONDS are not enough.
use strict;
use warnings;
use Socket qw(getaddrinfo unpack_sockaddr_in inet_ntoa AF_INET SOCK_DGRAM);
use Time::HiRes qw(time);

my ($count, $seconds, $zone, $known, $expected) = @ARGV;
my $deadline = time + $seconds;
my ($answered, $wrong) = (0, 0);
for my $number (1 .. $count) {
    die "only $number of $count within $seconds s\n" if time > $deadline;
    my $is_known = defined $known && $number % 2;
    my $name = $is_known ? $known : "nobody-$number";
    my ($error, @found) = getaddrinfo("$name.$zone", "", { family => AF_INET, socktype => SOCK_DGRAM });
    my @addresses = $error ? () : map { inet_ntoa((unpack_sockaddr_in($_->{addr}))[1]) } @found;
    $answered++ if @addresses;
    $wrong++ if "@addresses" ne ($is_known ? $expected : "");
}
print "$answered $wrong\n";

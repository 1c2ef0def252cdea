#!/usr/bin/perl
# A runner in Perl: it serves one call after another in a process that stays. See docs/guide/protocol.md.
use strict;
use warnings;
use JSON::PP;

use constant { HELLO => 1, WELCOME => 2, INIT => 3, READY => 4, INVOKE => 6, DATA => 7, RESULT => 9, ERROR => 10, BYE => 12 };
use constant { END_OF_BODY => 1, HEADER => 16, MAX_FRAME => 1 << 20 };

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
open(my $host, '+<&=', 3) or die "descriptor 3 is not open: $!\n";
binmode $host;
$| = 1;

sub get {
    my ($want) = @_;
    my $bytes = '';
    while (length $bytes < $want) {
        my $got = sysread($host, $bytes, $want - length $bytes, length $bytes);
        exit 0 unless $got;    # the host has gone
    }
    return $bytes;
}

# The next frame: kind, flags, call, body.
sub hear {
    my ($length, $kind, $flags, undef, $call) = unpack 'VCCvQ<', get(HEADER);
    return ($kind, $flags, $call, get($length));
}

sub say_frame {
    my ($kind, $flags, $call, $body) = @_;
    my $frame = pack('VCCvQ<', length $body, $kind, $flags, 0, $call) . $body;
    while (length $frame) {
        my $sent = syswrite $host, $frame;
        exit 0 unless defined $sent;
        substr($frame, 0, $sent) = '';
    }
}

# The function itself.
my $calls = 0;

sub handle {
    my ($event, $context) = @_;
    print "execution $context->{execution}\n";    # stdout and stderr are the log
    die "who is there?\n" unless ref $event eq 'HASH' && defined $event->{name};
    return { greeting => "$ENV{GREETING}, $event->{name}!", calls => ++$calls, function => $context->{function} };
}

# Who are we, which version do we speak, and what are we to load?
say_frame(HELLO, 0, 0, $json->encode({ versions => [1], features => [], runtime => "perl $^V" }));
my ($welcome) = hear();
my ($init)    = hear();
die "the host broke the protocol\n" unless $welcome == WELCOME && $init == INIT;
say_frame(READY, 0, 0, '{}');

while (1) {
    my ($kind, $flags, $call, $head) = hear();
    exit 0 if $kind == BYE;
    die "kind $kind where a call begins\n" unless $kind == INVOKE;
    $head = $json->decode($head);
    my $body = '';
    until ($flags & END_OF_BODY) {
        (undef, $flags, undef, my $piece) = hear();
        $body .= $piece;
    }
    my $event = $head->{body} eq 'json' ? $json->decode($body) : undef;
    my $result = eval { $json->encode(handle($event, $head->{context})) };
    if (defined $result) {
        say_frame(RESULT, 0, $call, $json->encode({ content_type => 'application/json' }));
        while (length $result > MAX_FRAME) {
            say_frame(DATA, 0, $call, substr($result, 0, MAX_FRAME, ''));
        }
        say_frame(DATA, END_OF_BODY, $call, $result);
    } else {
        chomp(my $why = $@);
        say_frame(ERROR, END_OF_BODY, $call, $json->encode({ type => 'die', message => $why, trace => [] }));
    }
}

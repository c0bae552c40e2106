#!/usr/bin/perl
# Requests through the Perl module FCGI::Client, each on a connection of its own.
#
# On stdin, as JSON:   {connect: {unix: path} or {host, port}, requests: [request, ...]}
#   request: {env: {NAME: value}, body: base64} for its request()
#   or {phases: [{send: [[method of RecordFactory, argument, ...], ...], until: type}, ...]} for its records; the
#   contents among the arguments (of build_stdin) are base64, and until is the type of the record to wait for.
# On stdout, as JSON:  [{stdout, stderr: base64 or null, status} or {records: [[type, request id, content], ...]}, ...]
use strict;
use warnings;

use FCGI::Client;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use MIME::Base64;

sub connection {
    my ($where) = @_;
    my $sock = $where->{unix}
        ? IO::Socket::UNIX->new(Peer => $where->{unix})
        : IO::Socket::INET->new(PeerAddr => $where->{host}, PeerPort => $where->{port});
    die "cannot connect: $!" unless $sock;
    return FCGI::Client::Connection->new(sock => $sock);
}

sub octets { my ($text) = @_; utf8::encode($text); return $text }

sub base64 { my ($octets) = @_; return defined $octets ? encode_base64($octets, '') : undef }

sub ask {
    my ($connection, $request) = @_;
    my %env = map { octets($_) } %{ $request->{env} };
    my ($stdout, $stderr, $status) = $connection->request(\%env, decode_base64($request->{body} // ''));
    return { stdout => base64($stdout), stderr => base64($stderr), status => $status };
}

sub converse {
    my ($connection, $phases) = @_;
    my @came;
    for my $phase (@$phases) {
        for my $call (@{ $phase->{send} }) {
            my ($method, @arguments) = @$call;
            $arguments[1] = decode_base64($arguments[1]) if $method eq 'build_stdin';
            @arguments = map { octets($_) } @arguments if $method eq 'build_params';
            $connection->sock->print(FCGI::Client::RecordFactory->$method(@arguments));
        }
        $connection->sock->flush;
        while (my $record = $connection->_read_record) {
            push @came, [$record->type + 0, $record->request_id + 0, base64($record->content)];
            last if $record->type == $phase->{until};
        }
    }
    $connection->sock->shutdown(1);
    return { records => \@came };
}

my $input = decode_json(do { local $/; <STDIN> });
my @answers;
for my $request (@{ $input->{requests} }) {
    my $connection = connection($input->{connect});
    push @answers, $request->{phases} ? converse($connection, $request->{phases}) : ask($connection, $request);
}
print encode_json(\@answers);

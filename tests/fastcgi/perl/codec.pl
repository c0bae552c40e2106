#!/usr/bin/perl
# Net::FastCGI for a program in another language: one process, any number of calls over its stdin and stdout.
#
# A call is a frame, and so is its answer. A frame is a length (32 bits, big-endian) and as many bytes: fields, each
# with its own length in front in the same way. The fields of a call are the name of a function and its arguments;
# those of an answer are "ok" and what was returned, or "error" and why.
use strict;
use warnings;

use Net::FastCGI::IO qw(read_record write_record);
use Net::FastCGI::Protocol qw(:all);

local $SIG{__WARN__} = sub { };    # "wrapped in pack": what came of it is in the answer

# What takes or gives hashes, or more than one record; everything else is called by its own name.
my %special = (
    parse_params => sub { %{ parse_params(@_) } },
    build_params => sub { build_params({@_}) },

    # A record as a flat list of names and values, those of FCGI_GET_VALUES_RESULT and the like among them.
    parse_record_body => sub {
        my %record = %{ parse_record_body(@_) };
        my $values = delete $record{values} || {};
        return (%record, %$values);
    },

    # All whole records of some octets: type, id, length of the padding and content of each; last what is left.
    parse_records => sub {
        my ($octets) = @_;
        my @records;
        while ((my $length = get_record_length($octets) || 8) <= length $octets) {
            my ($type, $id, $content) = parse_record($octets);
            push @records, $type, $id, $length - 8 - length $content, $content;
            substr($octets, 0, $length, '');
        }
        return (@records, $octets);
    },

    # A file of records, read and written again by the functions that do so with files.
    copy_records => sub {
        open(my $from, '+>', undef) or die $!;
        open(my $to,   '+>', undef) or die $!;
        my $done = 0;
        while ($done < length $_[0]) {
            $done += syswrite($from, $_[0], length($_[0]) - $done, $done) || die $!;
        }
        sysseek($from, 0, 0);
        while (my ($type, $id, $content) = read_record($from)) {
            write_record($to, $type, $id, $content) or die $!;
        }
        my $size = sysseek($to, 0, 1) + 0;
        sysseek($to, 0, 0);
        my $copy = '';
        while (length $copy < $size) {
            sysread($to, $copy, $size - length $copy, length $copy) or die $!;
        }
        return $copy;
    },

    # Arguments: id, role, flags, number of streams, the streams (STDIN, DATA), then names and values.
    build_request => sub {
        my ($id, $role, $flags, $count, @rest) = @_;
        my @streams = splice(@rest, 0, $count);
        return build_begin_request($id, $role, $flags, {@rest}, @streams);
    },
);

binmode STDIN;
binmode STDOUT;
$| = 1;

while (read(STDIN, my $prefix, 4)) {
    my $size = unpack('N', $prefix);
    read(STDIN, my $frame, $size) == $size or die 'half a call';
    my ($name, @arguments) = unpack('(N/a*)*', $frame);
    my $function = $special{$name} || Net::FastCGI::Protocol->can($name) || die "no function $name";
    my @answer = eval { ('ok', $function->(@arguments)) };
    @answer = ('error', $@) if $@;
    print pack('N/a*', pack('(N/a*)*', @answer));
}

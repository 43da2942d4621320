# The job of trace perl-words: count, group, expire and report random words.
use strict; use warnings; srand(11);
my (%count, %pairs, @recent);
my @syllables = qw(ka lo mi nu pe ra si to vu ze);
for my $i (1 .. 60000) {
    my $word = join '', map { $syllables[int rand @syllables] } 1 .. 1 + int rand 4;
    $count{$word}++;
    push @recent, { word => $word, at => $i, parts => [ split //, substr $word, 0, 3 ] };
    shift @recent if @recent > 2000;
    push @{ $pairs{ $recent[0]{word} } }, $word if $i % 5 == 0;
    delete $pairs{ $recent[ rand @recent ]{word} } if $i % 7 == 0;
}
my @top = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
my $report = join "\n", map { sprintf "%-12s %6d %s", $_, $count{$_}, join ',', @{ $pairs{$_} || [] }[ 0 .. 1 ] // '' } @top[ 0 .. 500 ];
print length($report) > 0 ? "ok\n" : "empty\n";

#!/bin/sh
# Records the shipped traces anew: sh bench/recorder/jobs/record_all.sh OUTPUT_DIRECTORY [PYTHON]
# Needs cc, g++, sqlite3, perl and glibc.  The traces differ a little from machine to machine, as the programs do.
set -eu
out=$(cd "$1" && pwd)
python=${2:-python3}
jobs=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH=$(cd "$jobs/../../.." && pwd)
export PYTHONPATH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
record() { "$python" -m pyalloc._bench.record --output "$out" "$@"; }

cp "$jobs"/* "$scratch"
cd "$scratch"
record --name python-json --env PYTHONMALLOC=malloc --env PYTHONHASHSEED=0 \
    --describe "PYTHONMALLOC=malloc PYTHONHASHSEED=0 python3 -S python_json.py" -- "$python" -S python_json.py
"$python" large_c.py > large.c
record --name gcc-c --exe cc1 -- gcc -O1 -c large.c -o large.o
record --name gcc-cxx --exe cc1plus -- g++ -std=c++17 -O0 -c heavy_templates.cc -o heavy.o
record --name sqlite-index -- sqlite3 -init sqlite_index.sql :memory: .quit
record --name perl-words -- perl perl_words.pl

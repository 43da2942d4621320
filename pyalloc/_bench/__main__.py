"""``python -m pyalloc._bench``: the same as ``python -m pyalloc bench``."""

import argparse
import sys

from pyalloc import _bench

parser = argparse.ArgumentParser(prog="python -m pyalloc._bench", description="compare allocators")
_bench.add_arguments(parser)
try:
    sys.exit(_bench.main(parser.parse_args()))
except BrokenPipeError:  # `| head`
    sys.stderr.close()
    sys.exit(1)

"""Generate the procedural Streets dataset: see `python tools/make_streets.py --help`."""

import sys

from mmprompt.datasets.streets.command import main

if __name__ == '__main__':
    sys.exit(main())

"""Run a table of results: see `python tools/reproduce.py --help`."""

import sys

from mmprompt.apis.reproduce.command import main

if __name__ == '__main__':
    sys.exit(main())

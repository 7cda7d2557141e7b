"""See `python tools/test.py --help`; the work is done in mmprompt.apis.test."""

import sys

from mmprompt.apis.test import main

if __name__ == '__main__':
    sys.exit(main())

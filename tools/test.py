"""See `python tools/test.py --help`; done by mmprompt.apis.test."""

import sys

from mmprompt.apis.test import main

if __name__ == '__main__':
    sys.exit(main())

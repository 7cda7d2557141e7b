"""See `python tools/train.py --help`; the work is done in mmprompt.apis.train."""

import sys

from mmprompt.apis.train import main

if __name__ == '__main__':
    sys.exit(main())

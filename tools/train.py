"""See `python tools/train.py --help`; done by mmprompt.apis.train."""

import sys

from mmprompt.apis.train import main

if __name__ == '__main__':
    sys.exit(main())

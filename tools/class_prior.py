"""See `python tools/class_prior.py --help`; the work is done in mmprompt.apis.class_prior."""

import sys

from mmprompt.apis.class_prior import main

if __name__ == '__main__':
    sys.exit(main())

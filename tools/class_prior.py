"""See `python tools/class_prior.py --help`; done by mmprompt.apis.prepare.class_prior."""

import sys

from mmprompt.apis.prepare.class_prior import main

if __name__ == '__main__':
    sys.exit(main())

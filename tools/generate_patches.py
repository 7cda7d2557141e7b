"""See `python tools/generate_patches.py --help`; the work is in mmprompt.apis.generate_patches."""

import sys

from mmprompt.apis.generate_patches import main

if __name__ == '__main__':
    sys.exit(main())

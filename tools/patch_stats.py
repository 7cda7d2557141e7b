"""See `python tools/patch_stats.py --help`; the work is done in mmprompt.apis.patch_stats."""

import sys

from mmprompt.apis.patch_stats import main

if __name__ == '__main__':
    sys.exit(main())

"""See `python tools/patch_stats.py --help`; done by mmprompt.apis.patches.stats."""

import sys

from mmprompt.apis.patches.stats import main

if __name__ == '__main__':
    sys.exit(main())

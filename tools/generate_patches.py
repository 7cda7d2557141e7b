"""See `python tools/generate_patches.py --help`; done by mmprompt.apis.patches.generate."""

import sys

from mmprompt.apis.patches.generate import main

if __name__ == '__main__':
    sys.exit(main())

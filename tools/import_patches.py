"""See `python tools/import_patches.py --help`; done by mmprompt.apis.patches.imports."""

import sys

from mmprompt.apis.patches.imports import main

if __name__ == '__main__':
    sys.exit(main())

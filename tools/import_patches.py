"""See `python tools/import_patches.py --help`; the work is done in mmprompt.apis.patch_import."""

import sys

from mmprompt.apis.patch_import import main

if __name__ == '__main__':
    sys.exit(main())

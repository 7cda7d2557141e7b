"""See `python tools/import_patches.py --help`; done by mmprompt.apis.patches.import_masks."""

import sys

from mmprompt.apis.patches.import_masks import main

if __name__ == '__main__':
    sys.exit(main())

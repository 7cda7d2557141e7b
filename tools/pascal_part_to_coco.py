"""See `python tools/pascal_part_to_coco.py --help`."""

import sys

from mmprompt.apis.prepare.pascal_part_to_coco import main

if __name__ == '__main__':
    sys.exit(main())

"""See `python tools/yolo_to_coco.py --help`; the work is done in mmprompt.apis.yolo_to_coco."""

import sys

from mmprompt.apis.yolo_to_coco import main

if __name__ == '__main__':
    sys.exit(main())

"""See `python tools/yolo_to_coco.py --help`; done by mmprompt.apis.prepare.yolo_to_coco."""

import sys

from mmprompt.apis.prepare.yolo_to_coco import main

if __name__ == '__main__':
    sys.exit(main())

"""Make a text bank of your own class names: see `python tools/encode_class_names.py --help`."""

import sys

from mmprompt.apis.prepare.encode import main

if __name__ == '__main__':
    sys.exit(main())

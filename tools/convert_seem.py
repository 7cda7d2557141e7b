"""See `python tools/convert_seem.py --help`; the work is done in mmprompt.apis.convert."""

import sys

from mmprompt.apis.convert import main

if __name__ == '__main__':
    sys.exit(main())

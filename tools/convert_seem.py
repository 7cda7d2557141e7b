"""See `python tools/convert_seem.py --help`; done by mmprompt.apis.prepare.convert."""

import sys

from mmprompt.apis.prepare.convert import main

if __name__ == '__main__':
    sys.exit(main())

"""Draw scenes, weights and shots of finished runs: see `python tools/pictures.py --help`."""

import sys

from mmprompt.apis.pictures import main

if __name__ == '__main__':
    sys.exit(main())

"""Draw scenes, weights and shots of finished runs: see `python tools/pictures.py --help`."""

import sys

from mmprompt.apis.pictures.command import main

if __name__ == '__main__':
    sys.exit(main())

"""Learn prompts for foggy streets and compare them: see `python tools/demo.py --help`."""

import sys

from mmprompt.apis.demo import main

if __name__ == '__main__':
    sys.exit(main())

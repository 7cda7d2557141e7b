"""Learn prompts from your own images and masks: see `python tools/learn.py --help`."""

import sys

from mmprompt.apis.learn.command import main

if __name__ == '__main__':
    sys.exit(main())

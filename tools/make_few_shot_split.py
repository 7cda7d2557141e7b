"""See `python tools/make_few_shot_split.py --help`; the work is done in mmprompt.apis.few_shot."""

import sys

from mmprompt.apis.few_shot import main

if __name__ == '__main__':
    sys.exit(main())

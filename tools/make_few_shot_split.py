"""See `python tools/make_few_shot_split.py --help`; done by mmprompt.apis.prepare.few_shot."""

import sys

from mmprompt.apis.prepare.few_shot import main

if __name__ == '__main__':
    sys.exit(main())

"""Predict images under many prompts: see `python tools/predict.py --help`."""

import sys

from mmprompt.apis.predict.command import main

if __name__ == '__main__':
    sys.exit(main())

"""Write a trained segmentor as ONNX or torch.export: see `python tools/export.py --help`."""

import sys

from mmprompt.apis.export import main

if __name__ == '__main__':
    sys.exit(main())

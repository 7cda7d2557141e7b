"""`python -m mmprompt.doctor`: the same as `mmprompt-doctor` and `python mmprompt_doctor.py`."""

import sys

from mmprompt_doctor import main

if __name__ == '__main__':
    sys.exit(main())

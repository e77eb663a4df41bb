"""Semi-supervised learning from unlabelled images at any scale (Yalniz et al., 2019)."""

import gc
import sys

IS_COMMAND = sys.argv[0] == "-m"
"""Python is about to run a module of this package."""

if IS_COMMAND:  # what it imports is no garbage: no time is lost looking (steps.run looks again)
    gc.disable()

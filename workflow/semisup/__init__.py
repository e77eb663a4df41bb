"""Semi-supervised learning from unlabelled images at any scale (Yalniz et al., 2019)."""

import gc
import sys

# A command starts, and what it imports is no garbage: no time is lost looking (steps.run looks again).
if sys.argv[0] == "-m":
    gc.disable()

"""Semi-supervised learning from unlabelled images at any scale (Yalniz et al., 2019)."""

import gc

# What is imported is no garbage: looking for some after every 700 objects takes a sixth of the 4 s of
# processor time in which a training starts, and a tenth of what a question takes.
gc.set_threshold(50_000)

"""Semi-supervised learning from unlabelled images at any scale (Yalniz et al., 2019)."""

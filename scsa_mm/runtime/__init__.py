"""What tools/train.py and tools/test.py share: configs, checks before a run, checkpoints, devices."""

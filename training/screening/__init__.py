"""How the screening network comes to be: corpus, augmentation, training, operating point, export; baselines
beside it.
"""

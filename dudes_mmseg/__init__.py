"""DUDES for mmsegmentation: an uncertainty map from any segmentor in one pass, taught by an ensemble.

Importing this registers everything here with mmsegmentation, which is all that `custom_imports` in a config has to do.
"""

"""Ensembles that cost less than networks of their own; importing registers them with mmsegmentation."""

from .shared_backbone import HeadEnsembleEncoderDecoder, HeadEnsembleSegmentor

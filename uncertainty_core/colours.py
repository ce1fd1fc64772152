"""Okabe and Ito's colours, told apart by colour-blind readers too; black is left for text."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

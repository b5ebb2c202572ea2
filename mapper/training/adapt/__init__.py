"""Unsupervised domain adaptation: a labelled source, a target without labels."""

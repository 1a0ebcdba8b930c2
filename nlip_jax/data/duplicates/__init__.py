"""Captions that are equal, or nearly so, among millions: by hashes, without comparing all pairs."""

"""Bytes from hostile networks: range reads of assets that either are right or are an error."""

"""Many looks at the ground made one: plain arrays of one row strip, no files, no network."""

"""Networks, labelled data, training, export and evaluation. Needs `mapper[train]`."""

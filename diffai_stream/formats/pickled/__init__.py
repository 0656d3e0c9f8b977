"""Pickles read as data: a machine that runs their instructions and never a line of anyone's code."""

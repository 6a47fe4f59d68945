"""Private Keras names that tfopt needs, one function each, with the reason.

A test per function fails when Keras changes what is behind it.
"""

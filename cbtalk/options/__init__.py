"""Options of all parts, each stated once: name, default, help and word for its value. The command line is made of them.

The classes are the groups in which `--help` shows them, and the options of the functions in Python are made of the same
classes. Nothing here imports torch, so that help comes at once.
"""

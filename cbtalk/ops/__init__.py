"""The public ops: each validates its arguments, chooses a backend and carries its own autograd."""

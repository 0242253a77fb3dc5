"""The talker: thin modules over the ops, configured by `TalkerConfig`."""

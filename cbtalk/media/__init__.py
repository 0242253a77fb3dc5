"""Images and video in and out: reading, writing, cropping. No model in it."""

"""Published networks, read from the files that the user has: faces, LPIPS, VGG, any ONNX or TorchScript."""

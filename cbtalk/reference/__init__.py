"""Each op in plain torch: any floating dtype, any device, differentiable. What is written here defines correctness."""

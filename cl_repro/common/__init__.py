"""What every room uses: errors, random numbers, devices, trees of tensors, statistics."""

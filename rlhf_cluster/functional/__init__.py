"""Pure tensor maths: tensors in, tensors out; every formula cites its paper. No config, device or process group."""

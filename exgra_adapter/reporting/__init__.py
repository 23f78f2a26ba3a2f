"""What a training run leaves to read: the training report, the model card, and the estimate of memory."""

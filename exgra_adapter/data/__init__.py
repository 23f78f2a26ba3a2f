"""Records, extended answers, images and batches."""

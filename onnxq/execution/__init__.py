"""Running models: sessions and the kernel library, inner tensors, cut models, timing."""

"""GGUF files as mlx-lm model directories: header, names, values, tokenizer, architectures."""

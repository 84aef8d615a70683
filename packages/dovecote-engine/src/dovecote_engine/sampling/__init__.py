"""From logits to the next token of a row, within what a request asks for."""

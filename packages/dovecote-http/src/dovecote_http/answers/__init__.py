"""What all protocols share: a request's body, its call, its replies and its end."""

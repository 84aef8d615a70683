"""Who gets in, from where, how often, and how much of what they send is held."""

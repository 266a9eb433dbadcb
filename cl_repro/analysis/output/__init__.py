"""Tables as text, figures as files, and the command lines that make them."""

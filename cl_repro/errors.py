"""The one exception a user's mistake raises: one line, with the value and the rule."""


class UserError(ValueError):
    """Bad input (a key, a value, a file, a pair). Entry points print it as one line and exit with status 2."""

"""The one exception that a command line shows as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one paragraph: the file, key or class, what was expected, what was found, and how
    to mend it. Command lines print it and exit with status 2.
    """

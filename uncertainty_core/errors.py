"""Errors that a user can mend."""


class UserError(ValueError):
    """Something in a config, a file or a command line is wrong; the message is one sentence on what to change."""

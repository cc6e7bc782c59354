"""The one exception that users are meant to read."""


class HistotransferError(Exception):
    """Something the user can mend: the message is one line saying what, where, and what to do.

    The command line prints the message alone and exits with status 2; a notebook shows it as the error of the cell.
    """

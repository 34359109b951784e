"""The command line: ``skysense NAME ...``, one small file a command."""

__version__ = "0.1.0"

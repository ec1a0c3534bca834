# What signal takes its names from is built in, and has no types of its own.
from signal import *  # noqa: F403

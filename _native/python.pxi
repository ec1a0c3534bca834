# For the extensions: Python's text to the kernel, and the kernel's errors to Python.

cdef extern from "Python.h":
    object PyUnicode_EncodeFSDefault(object text)


cdef bytes encoded(path):
    return path if isinstance(path, bytes) else PyUnicode_EncodeFSDefault(path)


cdef object failure(str verb, path=None, int number=0):
    """Return an OSError of errno, or of the number, with the path as filename and with what could not be done."""
    if number == 0:
        number = errno
    error = OSError(number, strerror(number).decode(), path)
    error.verb = verb
    return error

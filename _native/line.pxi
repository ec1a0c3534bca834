# Lines of text, put together.

cdef enum:
    LINE = 512


cdef void put(char *line, const char *text) noexcept nogil:
    """Append text to line, of LINE bytes."""
    cdef size_t used = strlen(line)
    cdef size_t size = strlen(text)
    if used + size < LINE:
        memcpy(line + used, text, size + 1)


cdef void put_number(char *line, unsigned int number) noexcept nogil:
    cdef char digits[12]
    cdef int at = 11
    digits[at] = 0
    while True:
        at -= 1
        digits[at] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    put(line, digits + at)

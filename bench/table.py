"""The table of results: who did what in which times, compared with whom."""

import math
import statistics


class Row:
    """A line of the table: the samples of one contestant in one phase."""

    def __init__(self, phase, title, unit):
        self.phase = phase
        self.title = title
        self.unit = unit
        self.samples = []
        self.ratio = None
        self.error = None  # the standard error of the ratio
        self.bound = None  # of the ratio, or of the median where nothing is compared
        self.required = False  # whether it is a miss if there are no samples
        self.reason = "not reached"

    @property
    def median(self):
        return statistics.median(self.samples)

    @property
    def relative_error(self):
        """The standard error of the median, as a part of it.

        How many samples are below the true median is binomially distributed, with a standard deviation of sqrt(n)/2:
        so far from the middle are the two samples whose distance is twice the error.
        """
        ordered, count = sorted(self.samples), len(self.samples)
        middle, deviation = (count - 1) / 2, math.sqrt(count) / 2
        low, high = max(0, math.floor(middle - deviation)), min(count - 1, math.ceil(middle + deviation))
        return (ordered[high] - ordered[low]) / 2 / self.median

    @property
    def missed(self):
        if not self.samples:
            return self.required
        return self.bound is not None and (self.median if self.ratio is None else self.ratio) > self.bound

    def compare(self, own, base, bound=None):
        """Show here the ratio of own's median to base's, if both were measured. It must not exceed the bound."""
        if own.samples and base.samples:
            self.ratio, self.bound = own.median / base.median, bound
            self.error = self.ratio * math.hypot(own.relative_error, base.relative_error)

    def __str__(self):
        if not self.samples:
            return f"  {self.title:32} not measured: {self.reason}"
        line = f"  {self.title:32}{self.median:10.2f}{min(self.samples):10.2f} {self.unit:3}"
        line += f"{'':17}" if self.ratio is None else f"{self.ratio:9.3f} \N{PLUS-MINUS SIGN}{self.error:<6.3f}"
        if self.bound is not None:
            line += f"{self.bound:9.3f}  {'MISSED' if self.missed else 'ok'}"
        return line.rstrip()

    def as_dict(self):
        summary = {"median": self.median, "min": min(self.samples)} if self.samples else {}
        return {**vars(self), **summary, "missed": self.missed}


class Table:
    """The rows in the order in which they were first asked for."""

    def __init__(self):
        self.rows = []

    def row(self, phase, title, unit="ms"):
        """Return the row of that phase and title, a new one if there is none yet."""
        for row in self.rows:
            if (row.phase, row.title) == (phase, title):
                return row
        self.rows.append(Row(phase, title, unit))
        return self.rows[-1]

    def __str__(self):
        lines = []
        phase = None
        for row in self.rows:
            if row.phase != phase:
                phase = row.phase
                lines.append(f"{phase:34}{'median':>10}{'min':>10}    {'ratio':>9}{'bound':>17}")
            lines.append(str(row))
        return "\n".join(lines)

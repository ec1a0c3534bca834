"""The same filter in fewer instructions: a comparison for each range of calls, where libseccomp has one for each call.

The kernel takes the time of a whole entry for a thousand instructions, which it translates for each process that a
filter is put on.  What is known of bpf(4) here is what libseccomp makes of a filter, see also seccomp(2).
"""
import operator
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # operation, how many instructions are skipped if it holds, and if it does not, operand
    Instruction = tuple[int, int, int, int]

LAYOUT = struct.Struct("=HBBI")
LOAD, JUMP, RETURN = 0x20, 0x05, 0x06
EQUAL, GREATER, AT_LEAST, HAS_BITS = 0x15, 0x25, 0x35, 0x45
BRANCHES = (EQUAL, GREATER, AT_LEAST, HAS_BITS)
COMPARISONS = {EQUAL: operator.eq, GREATER: operator.gt, AT_LEAST: operator.ge}
NUMBER, ARCHITECTURE = 0, 4         # where they are in what a filter is asked about, struct seccomp_data
UNKNOWN, LARGEST = -1, (1 << 32) - 1
FAR = 250               # instructions: a branch skips 255


def shortened(instructions: bytes) -> bytes:
    """Return a filter that decides the same.  Raises KeyError for one that libseccomp would not make."""
    program = [*LAYOUT.iter_unpack(instructions)]
    way = [*walked(program, UNKNOWN, 0)]
    architectures = [program[at][3] for at in way if program[at][0] == EQUAL]
    made = Backwards(program)
    last = made.copy(way[-1])
    trees = [made.after(LOAD, NUMBER, made.tree(ranges(program, architecture))) for architecture in architectures]
    for architecture, tree in zip(architectures, trees, strict=True):
        last = made.branch(EQUAL, architecture, tree, last)
    made.after(LOAD, ARCHITECTURE, last)
    return b"".join(LAYOUT.pack(*instruction) for instruction in reversed(made.instructions))


def walked(program: "list[Instruction]", architecture: int, number: int) -> "Iterator[int]":
    """Yield where a call comes by in the program, to where it is decided, or from where on its arguments decide."""
    at = value = 0
    while True:
        yield at
        operation, yes, no, operand = program[at]
        if operation == RETURN or operation == LOAD and operand not in (NUMBER, ARCHITECTURE):
            return
        if operation == LOAD:
            value = number if operand == NUMBER else architecture
        elif operation == JUMP:
            at += operand
        else:
            at += yes if COMPARISONS[operation](value, operand) else no
        at += 1


def ranges(program: "list[Instruction]", architecture: int) -> list[tuple[int, int]]:
    """Return (first number, where it is decided) for each range of numbers that is decided alike."""
    operands = {operand for operation, _, _, operand in program if operation in BRANCHES}
    found: list[tuple[int, int]] = []
    for number in sorted({0} | operands | {operand + 1 for operand in operands if operand < LARGEST}):
        *_, at = walked(program, architecture, number)
        if not found or program[at] != program[found[-1][1]] or program[at][0] != RETURN and at != found[-1][1]:
            found.append((number, at))
    return found


class Backwards:
    """A program that is made from its end: a branch only leads forward, to what is there by then."""

    __slots__ = ("copies", "instructions", "program", "returns")

    def __init__(self, program: "list[Instruction]") -> None:
        self.program = program
        self.instructions: list[Instruction] = []   # the last one first
        self.copies: dict[int, int] = {}            # of instructions of the program
        self.returns: dict[int, int] = {}           # by what they return

    def add(self, operation: int, yes: int, no: int, operand: int) -> int:
        self.instructions.append((operation, yes, no, operand))
        return len(self.instructions) - 1

    def between(self, target: int) -> int:
        """Return how many instructions the next one would have to skip to come to that one."""
        return len(self.instructions) - 1 - target

    def near(self, target: int) -> int:
        """Return one that a branch can lead to, and that leads to this one."""
        if self.between(target) <= FAR:
            return target
        return self.add(JUMP, 0, 0, self.between(target))

    def branch(self, operation: int, operand: int, yes: int, no: int) -> int:
        yes, no = self.near(yes), self.near(no)
        return self.add(operation, self.between(yes), self.between(no), operand)

    def after(self, operation: int, operand: int, target: int) -> int:
        """Add an instruction after which the program goes on at the target."""
        if self.between(target):
            self.add(JUMP, 0, 0, self.between(target))
        return self.add(operation, 0, 0, operand)

    def copy(self, at: int) -> int:
        """Have an instruction of the program with all that it may lead to, once."""
        operation, yes, no, operand = self.program[at]
        if operation == JUMP:
            return self.copy(at + 1 + operand)
        if operation == RETURN:
            if operand not in self.returns:
                self.returns[operand] = self.add(RETURN, 0, 0, operand)
            return self.returns[operand]
        if at not in self.copies:
            if operation in BRANCHES:
                self.copies[at] = self.branch(operation, operand, self.copy(at + 1 + yes), self.copy(at + 1 + no))
            else:
                self.copies[at] = self.after(operation, operand, self.copy(at + 1))
        return self.copies[at]

    def tree(self, found: list[tuple[int, int]]) -> int:
        """Have a binary search for the range of a number."""
        if len(found) == 1:
            return self.copy(found[0][1])
        middle = len(found) // 2
        above = self.tree(found[middle:])
        return self.branch(AT_LEAST, found[middle][0], above, self.tree(found[:middle]))
